// Decides which tagged devices can sign in, such as CI machines. A tagged device has no user: its account belongs to the
// device itself, by its ID.

import type { WhoIs } from '../../tailscale/localapi.ts';
import { policyPage } from '../../tka/no-grant.ts';
import { type Caller, deviceLogin, Refusal } from '../http/contract.ts';
import type { TailnetFacts } from '../tailnet/status.ts';
import type { Grant, Subject } from './rules.ts';

/** What the configuration says about tagged devices. */
export interface DeviceRules {
  /** `identity.allowTagged`: one of these tags is enough. */
  readonly allowed: readonly string[];
  /** `tailscale.tag`: a device with the tag of the TKA servers can never sign in. */
  readonly serverTag: string;
}

// No person notices that a machine was stolen, so its access is shorter than a person's may be.
const longestMs = 60 * 60_000;

/**
 * Returns a tagged device as a caller. If it may not sign in, it is a caller without a role, so that the access that it
 * still has ends, as for a person whose grant was removed. `grantTo` evaluates the policy. Throws a Refusal if the
 * device's ID is unknown.
 */
export function deviceCaller(
  who: WhoIs,
  rules: DeviceRules,
  tailnet: TailnetFacts,
  grantTo: (subject: Subject) => Grant,
): Caller {
  const { device, dnsName, tags } = who;
  if (device === '') throw refused('tailscaled does not know the ID of your device');
  const login = deviceLogin(device);
  const base = { username: device, login, device, tagged: { node: dnsName, tags } };
  const problem = problemOf(who, rules, tailnet);
  if (problem !== undefined) return { ...base, role: '', periodMs: 0, problem, revoked: true };
  // The tags that count are those to which the policy must grant something.
  const counting = tags.filter((tag) => rules.allowed.includes(tag));
  const name = `${dnsName} (${counting.join(', ')})`;
  const grant = grantTo({ name, tags: counting });
  return { ...base, ...grant, periodMs: Math.min(grant.periodMs, longestMs) };
}

/** Returns why a tagged device may not sign in, or undefined if it may. */
function problemOf({ dnsName, tags }: WhoIs, rules: DeviceRules, tailnet: TailnetFacts): Refusal | undefined {
  // Another tailnet chooses the tags of its own devices.
  if (tailnet.suffix === '' || !dnsName.endsWith(`.${tailnet.suffix}`)) {
    return refused('tagged devices of other tailnets cannot sign in');
  }
  const own = tags.find((tag) => tag === rules.serverTag || tailnet.ownTags.includes(tag));
  if (own !== undefined) return refused(`a device with a tag of the TKA servers (${own}) cannot sign in`);
  if (tags.some((tag) => rules.allowed.includes(tag))) return undefined;
  return refused(
    `tagged devices cannot sign in here, unless identity.allowTagged lists one of their tags (${tags.join(', ')})`,
    [`sign in from a device of a person, or ask the operator of the TKA server to list the tag: ${policyPage}#ci`],
  );
}

const refused = (message: string, advice: readonly string[] = []): Refusal =>
  new Refusal(400, { message, ...(advice.length > 0 && { advice }) }, { reason: 'tagged_device' });
