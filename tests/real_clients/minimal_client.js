// The minimal Node client of the installation page, as it is printed there, and a run through its flows.
const axios = require('axios');

class OWKAIClient {
  constructor(options = {}) {
    this.apiUrl = options.apiUrl || process.env.OWKAI_API_URL || 'https://pilot.owkai.app';
    this.apiKey = options.apiKey || process.env.OWKAI_API_KEY;
    this.timeout = options.timeout || 30000;

    if (!this.apiKey) {
      throw new Error('API key required. Set OWKAI_API_KEY environment variable.');
    }

    this.headers = {
      'Content-Type': 'application/json',
      'Authorization': `Bearer ${this.apiKey}`,
      'User-Agent': 'OWKAIClient/2.0 Node'
    };
  }

  async submitAction(actionData) {
    const response = await axios.post(
      `${this.apiUrl}/api/v1/actions/submit`,
      actionData,
      { headers: this.headers, timeout: this.timeout }
    );
    return response.data;
  }

  async getActionStatus(actionId) {
    const response = await axios.get(
      `${this.apiUrl}/api/v1/actions/${actionId}/status`,
      { headers: this.headers, timeout: 10000 }
    );
    return response.data;
  }

  async testConnection() {
    try {
      await axios.get(`${this.apiUrl}/health`, { timeout: 5000 });

      const response = await axios.get(
        `${this.apiUrl}/api/deployment-info`,
        { headers: this.headers, timeout: 5000 }
      );

      return {
        status: 'connected',
        apiVersion: response.data.version || 'unknown'
      };
    } catch (error) {
      return {
        status: 'error',
        error: error.message
      };
    }
  }
}

async function main() {
  const client = new OWKAIClient();
  const told = { connect: await client.testConnection() };
  told.wrongKey = await new OWKAIClient({ apiKey: 'owkai_user_wrong_wrong_wrong' }).testConnection();
  const action = { agent_id: 'node', action_type: 'data_access', description: 'read', tool_name: 'sql' };
  told.allow = await client.submitAction(action);
  told.deny = await client.submitAction({ ...action, action_type: 'database_schema' });
  told.hold = await client.submitAction({ ...action, action_type: 'transaction', parameters: { amount: 5000 } });
  told.status = await client.getActionStatus(told.hold.action_id);
  told.statusByNumber = await client.getActionStatus(told.hold.id);
  try {
    await client.submitAction({ action_type: 'data_access' });
  } catch (error) {
    told.refused = { status: error.response.status, ...error.response.data };
  }
  console.log(JSON.stringify(told));
}

main();
