import os
import requests
from typing import Dict, Optional

class OWKAIClient:
    """
    Minimal ASCEND Authorization Center client.

    Based on: /ow-ai-backend/integration-examples/python_sdk_example.py:105-326
    """

    def __init__(
        self,
        api_url: Optional[str] = None,
        api_key: Optional[str] = None,
        timeout: int = 30
    ):
        self.api_url = api_url or os.getenv('OWKAI_API_URL', 'https://pilot.owkai.app')
        self.api_key = api_key or os.getenv('OWKAI_API_KEY')
        self.timeout = timeout

        if not self.api_key:
            raise ValueError("API key required. Set OWKAI_API_KEY environment variable.")

        # Authentication headers
        # Source: /ow-ai-backend/routes/authorization_routes.py:2219
        self.headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.api_key}",
            "User-Agent": "OWKAIClient/2.0 Python"
        }

    def submit_action(self, **action_data) -> Dict:
        """
        Submit agent action for authorization.

        Required fields: agent_id, action_type, description, tool_name
        Endpoint: POST /api/v1/actions/submit
        Source: /ow-ai-backend/routes/actions_v1_routes.py:251
        """
        url = f"{self.api_url}/api/v1/actions/submit"

        response = requests.post(
            url,
            headers=self.headers,
            json=action_data,
            timeout=self.timeout
        )
        response.raise_for_status()
        return response.json()

    def get_action_status(self, action_id: int) -> Dict:
        """
        Get current status of an action.

        Endpoint: GET /api/v1/actions/{action_id}/status
        Source: /ow-ai-backend/routes/actions_v1_routes.py:1111
        """
        url = f"{self.api_url}/api/v1/actions/{action_id}/status"

        response = requests.get(
            url,
            headers=self.headers,
            timeout=10 # Status checks are fast
        )
        response.raise_for_status()
        return response.json()

    def test_connection(self) -> Dict:
        """Test API connectivity and authentication"""
        try:
            # Health check
            response = requests.get(f"{self.api_url}/health", timeout=5)
            response.raise_for_status()

            # Verify authentication
            response = requests.get(
                f"{self.api_url}/api/deployment-info",
                headers=self.headers,
                timeout=5
            )
            response.raise_for_status()

            return {
                "status": "connected",
                "api_version": response.json().get("version", "unknown")
            }
        except Exception as e:
            return {
                "status": "error",
                "error": str(e)
            }
