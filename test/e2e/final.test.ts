// A final error is printed once, and its server asked once, although kubectl calls the plugin several times.
import { describe, expect } from 'vitest';
import { kubectl, needsKubectl } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { lines } from '../fixtures/program.ts';

const errors = (stderr: string) => lines(stderr).filter((line) => line.startsWith('error: http'));

describe.skipIf(kubectl === undefined).concurrent(`under kubectl${needsKubectl}`, () => {
  test.for([
    ['our server’s 422', 422, 'the period of the grant for alice is under 10 minutes'],
    ['the Go server’s 500', 500, '`period` may not specify a duration less than 10 minutes'],
  ] as const)('an error in the policy: %s', async ([, status, message], { home, us }) => {
    await home.run('login --all-contexts');
    us.faults.routes.login = { answer: { status, body: { message, advice: ['ask your administrator'] } } };
    const refused = await home.kubectl('--context prod-us get namespaces');
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(errors(refused.stderr)).toEqual([`error: ${us.server} refused the sign-in: ${message} (HTTP ${status})`]);
    expect(lines(refused.stderr).filter((line) => line === 'hint: ask your administrator')).toHaveLength(1);
    expect(us.counts.login).toBe(1);
    // Another kubectl gets it too.
    const again = await home.kubectl('--context prod-us get namespaces');
    expect(errors(again.stderr)).toHaveLength(1);
    expect(us.counts.login).toBe(2);
    // Once it is fixed, nothing of it remains.
    us.clearFaults();
    expect(await home.kubectl('--context prod-us get namespaces')).toMatchObject({ status: 0, stderr: '' });
  });

  test('being signed out is printed once for each kubectl, and not after the next login', async ({ home, us }) => {
    await home.run('login prod-us');
    await home.run('logout prod-us');
    for (let times = 0; times < 2; times++) {
      const refused = await home.kubectl('get namespaces');
      expect(refused).toMatchObject({ status: 1, stdout: '' });
      const said = lines(refused.stderr).filter((line) => /^(?:error: signed out|hint: )/.test(line));
      expect(said).toEqual([`error: signed out of ${us.server}`, 'hint: kubectl tka login prod-us']);
    }
    await home.run('login prod-us');
    expect(await home.kubectl('get namespaces')).toMatchObject({ status: 0, stderr: '' });
  });
});
