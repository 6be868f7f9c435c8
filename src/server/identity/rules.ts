// What the tailnet's policy grants. Evaluates the rules of the capability (`{"role", "period", "priority"}`) as the Go
// server does.

import { policyPage } from '../../tka/no-grant.ts';
import { goDuration } from '../../util/duration.ts';
import { cleanText, quoted } from '../../util/text.ts';
import { type Caller, Refusal } from '../http/contract.ts';

interface Rule {
  readonly role: string;
  readonly period: string;
  readonly priority: number;
}

/** What a policy grants a caller. See Caller. */
export type Grant = Pick<Caller, 'role' | 'periodMs' | 'problem' | 'revoked'>;

/** Who the rules are for: a person, or a tagged device. */
export interface Subject {
  /** The login, or the name of the device. */
  readonly name: string;
  /** Empty for a person. */
  readonly tags: readonly string[];
}

const policyIsWrong = { reason: 'invalid_policy' } as const;
const askMaintainer = (what: string): string => `ask a maintainer of the tailnet policy to ${what}: ${policyPage}`;

/**
 * Returns the grant of a capability's rules. The rule with the highest priority counts; `problem` says why there is no
 * grant.
 */
export function grantOf(rules: readonly unknown[], subject: Subject, capability: string): Grant {
  const none = { role: '', periodMs: 0 };
  if (rules.length === 0) return { ...none, problem: noGrant(subject, capability), revoked: true };
  try {
    const name = cleanText(subject.name, 320);
    const best = bestOf(
      rules.map((rule) => readRule(rule, name, capability)),
      name,
      capability,
    );
    const periodMs = best.period === '0' ? 0 : goDuration(best.period);
    // Go stores a duration as 64-bit nanoseconds and rejects longer ones.
    if (periodMs !== undefined && periodMs <= 2 ** 63 / 1e6) return { role: best.role, periodMs };
    const cause = { message: goProblem(best.period) };
    const advice = [askMaintainer(`correct the period of the rule for ${name}`)];
    // Clients know these words of the Go server.
    const problem = new Refusal(422, { message: 'Error parsing duration', advice, cause }, policyIsWrong);
    return { role: best.role, periodMs: 0, problem };
  } catch (error) {
    if (error instanceof Refusal) return { ...none, problem: error };
    throw error;
  }
}

/** Returns the refusal of a caller without a rule. It says what is missing, so that the client can show a grant. */
function noGrant({ name, tags }: Subject, capability: string): Refusal {
  // Older clients and the Go CLI print only the message.
  const message = 'No grant found for user';
  const who = tags.length === 0 ? { login: name } : { tags };
  return new Refusal(403, { message, capability, ...who }, { reason: 'no_grant' });
}

/**
 * Returns the rule with the highest priority. Throws a Refusal if two rules with that priority grant different access.
 */
function bestOf(rules: readonly Rule[], name: string, capability: string): Rule {
  const priority = rules.reduce((highest, rule) => Math.max(highest, rule.priority), -Infinity);
  const [best, ...others] = rules.filter((rule) => rule.priority === priority) as [Rule, ...Rule[]];
  // Several rules may grant the same access, for example to two groups.
  const rival = others.find(({ role, period }) => role !== best.role || period !== best.period);
  if (rival === undefined) return best;
  const told = ({ role, period }: Rule): string => `role ${quoted(role, 128)} for ${quoted(period, 128)}`;
  throw new Refusal(
    400,
    {
      message: `two rules of the capability ${quoted(capability, 128)} grant ${name} different access with priority ${priority}: ${told(best)} and ${told(rival)}`,
      advice: [askMaintainer('give one of the two rules a higher priority')],
    },
    policyIsWrong,
  );
}

function readRule(rule: unknown, name: string, capability: string): Rule {
  const wrong = (what: string): Refusal =>
    new Refusal(
      400,
      {
        message: `invalid rule of the capability ${quoted(capability, 128)} for ${name} in the tailnet policy`,
        advice: [askMaintainer('correct it')],
        cause: { message: what },
      },
      policyIsWrong,
    );
  if (typeof rule !== 'object' || rule === null || Array.isArray(rule)) throw wrong('a rule must be an object');
  const { role, period = '', priority = 0 } = rule as Readonly<Record<string, unknown>>;
  if (typeof role !== 'string' || role === '') throw wrong('"role" must be the name of a ClusterRole');
  if (typeof period !== 'string') throw wrong('"period" must be a string such as "8h"');
  if (typeof priority !== 'number' || !Number.isSafeInteger(priority)) {
    throw wrong('"priority" must be an integer');
  }
  return { role, period, priority };
}

/** Returns the error of Go's time.ParseDuration for an invalid duration. */
function goProblem(period: string): string {
  const shown = quoted(period, 64);
  if (/^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)$/.test(period)) return `time: missing unit in duration ${shown}`;
  const unit = /^[+-]?(?:[0-9.]+(?:ns|us|µs|μs|ms|s|m|h))*[0-9.]+([^0-9.]+)/.exec(period)?.[1];
  if (unit !== undefined && !/^(?:ns|us|µs|μs|ms|s|m|h)$/.test(unit)) {
    return `time: unknown unit ${quoted(unit, 64)} in duration ${shown}`;
  }
  return `time: invalid duration ${shown}`;
}
