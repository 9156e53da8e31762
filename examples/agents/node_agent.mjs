// An agent in Node.js, without a library: it waits where a person has to approve a request, and sends the very same one again.
//
//   node node_agent.mjs http://127.0.0.1:8000/customers/7/refunds '{"amount": 5000}'

const [url, body] = process.argv.slice(2);
const request = {
  method: 'POST',
  headers: { 'Content-Type': 'application/json', Authorization: 'Bearer refund-agent' },
  body,
  redirect: 'error',
};
const until = Date.now() + 600_000;

const seconds = (answer) => Number(answer.headers.get('retry-after')) || 1;
const sleep = (s) => new Promise((wake) => setTimeout(wake, s * 1000));

/** Return the approval that a refused request waits for, or undefined for any other answer. */
async function approvalOf(answer) {
  const isProblem = answer.headers.get('content-type')?.startsWith('application/problem+json');
  if (!isProblem || ![202, 403].includes(answer.status)) return undefined;
  const problem = await answer.clone().json();
  return problem.type === 'urn:ascend:problem:approval-required' ? problem.approval : undefined;
}

let answer = await fetch(url, request);
const approval = await approvalOf(answer);
if (approval) {
  const status = new URL(approval.status_url, url);
  if (status.origin !== new URL(url).origin) throw new Error('a status URL at another origin');
  console.error('on hold: a person has to approve this');
  let { state } = approval;
  for (let pause = seconds(answer); state === 'pending' && Date.now() < until; ) {
    await sleep(pause);
    const told = await fetch(status, { headers: request.headers, redirect: 'error' });
    if ([200, 404].includes(told.status)) ({ state } = await told.json());
    pause = seconds(told);
  }
  if (state !== 'approved') {
    console.error(`not approved: ${state}`);
    process.exit(1);
  }
  answer = await fetch(url, { ...request, headers: { ...request.headers, 'Ascend-Approval': approval.handle } });
}
console.log(await answer.text());
process.exitCode = answer.ok ? 0 : 1;
