// What the tailnet's policy grants. Evaluates the rules of the capability (`{"role", "period", "priority"}`) as the Go
// server does. Rules for joined clusters are a capability of their own, because older servers ignore keys that they do
// not know, and would read such a rule as one for themselves.

import { policyPage } from '../../tka/no-grant.ts';
import { goDuration } from '../../util/duration.ts';
import { matchesGlob } from '../../util/glob.ts';
import { own } from '../../util/json.ts';
import { parseSelector } from '../../util/selector.ts';
import { cleanText, quoted } from '../../util/text.ts';
import { type AskedCluster, type Caller, Refusal } from '../http/contract.ts';

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
  if (rules.length === 0) return nothing(noGrant(subject, capability));
  return unlessInvalid(() => grantBy(rules, subject, capability));
}

/**
 * Returns what the rules for joined clusters grant in one of them. Only rules whose `clusters` match the cluster count.
 * `labels` of the cluster are those that an administrator keeps, and undefined for a cluster that does not exist.
 */
export function clusterGrantOf(
  rules: readonly unknown[],
  subject: Subject,
  capability: string,
  { name, labels, problem }: AskedCluster,
): Grant {
  // A caller without a rule does not learn which clusters exist.
  if (rules.length === 0) return nothing(noGrant(subject, capability, name));
  if (problem !== undefined) return { ...none, problem };
  if (labels === undefined) return nothing(unknownCluster(name));
  return unlessInvalid(() => {
    const known = new Map(Object.entries(labels));
    const wrong = wrongRule(subject, capability);
    const matching = rules.filter((rule) => clustersOf(rule, wrong).some((matches) => matches(name, known)));
    if (matching.length === 0) return nothing(noGrant(subject, capability, name));
    return grantBy(matching, subject, capability);
  });
}

const none = { role: '', periodMs: 0 };

/** Returns the grant of a policy that grants nothing: the access that the caller has ends. */
const nothing = (problem: Refusal): Grant => ({ ...none, problem, revoked: true });

/** Returns the grant, or the refusal that was thrown as the problem of an empty grant. */
function unlessInvalid(grant: () => Grant): Grant {
  try {
    return grant();
  } catch (error) {
    if (error instanceof Refusal) return { ...none, problem: error };
    throw error;
  }
}

/** Returns the grant of at least one rule. Throws a Refusal for an invalid rule, and for two that disagree. */
function grantBy(rules: readonly unknown[], subject: Subject, capability: string): Grant {
  const name = cleanText(subject.name, 320);
  const wrong = wrongRule(subject, capability);
  const best = bestOf(
    rules.map((rule) => readRule(rule, wrong)),
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
}

/** Returns the refusal of a caller without a rule. It says what is missing, so that the client can show a grant. */
function noGrant({ name, tags }: Subject, capability: string, cluster?: string): Refusal {
  // Older clients and the Go CLI print only the message.
  const message = 'No grant found for user';
  const who = tags.length === 0 ? { login: name } : { tags };
  const where = cluster === undefined ? {} : { cluster };
  return new Refusal(403, { message, capability, ...who, ...where }, { reason: 'no_grant' });
}

function unknownCluster(name: string): Refusal {
  const advice = ['list the clusters: kubectl tka clusters'];
  return new Refusal(404, { message: `no cluster ${quoted(name)} has joined this login server`, advice });
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

type Wrong = (what: string) => Refusal;

/** Returns a function that returns the refusal for an invalid rule. */
function wrongRule(subject: Subject, capability: string): Wrong {
  const name = cleanText(subject.name, 320);
  return (what) =>
    new Refusal(
      400,
      {
        message: `invalid rule of the capability ${quoted(capability, 128)} for ${name} in the tailnet policy`,
        advice: [askMaintainer('correct it')],
        cause: { message: what },
      },
      policyIsWrong,
    );
}

function readRule(rule: unknown, wrong: Wrong): Rule {
  if (typeof rule !== 'object' || rule === null || Array.isArray(rule)) throw wrong('a rule must be an object');
  const { role, period = '', priority = 0 } = rule as Readonly<Record<string, unknown>>;
  if (typeof role !== 'string' || role === '') throw wrong('"role" must be the name of a ClusterRole');
  if (typeof period !== 'string') throw wrong('"period" must be a string such as "8h"');
  if (typeof priority !== 'number' || !Number.isSafeInteger(priority)) {
    throw wrong('"priority" must be an integer');
  }
  return { role, period, priority };
}

type Matches = (cluster: string, labels: ReadonlyMap<string, string>) => boolean;

const clustersLimit = 256;
const entryLimit = 1_000;
// Joined clusters are DNS labels. An asterisk stands for any text.
const nameOrGlob = /^[a-z0-9*](?:[a-z0-9*-]{0,252}[a-z0-9*])?$/;

/** Returns what the entries of a rule's `clusters` match. Throws a Refusal if one is invalid. */
function clustersOf(rule: unknown, wrong: Wrong): readonly Matches[] {
  const [role, entries] = [own(rule, 'role'), own(rule, 'clusters')];
  const invalid = (what: string): Refusal =>
    wrong(typeof role === 'string' ? `${what} (the rule with the role ${quoted(role, 128)})` : what);
  const expected = 'must be a list of names, globs such as "prod-*", or label selectors such as "env=prod"';
  if (!Array.isArray(entries) || entries.length === 0) throw invalid(`"clusters" ${expected}`);
  if (entries.length > clustersLimit) throw invalid(`"clusters" has more than ${clustersLimit} entries`);
  return entries.map((entry: unknown) => {
    if (typeof entry !== 'string' || entry.length > entryLimit) throw invalid(`"clusters" ${expected}`);
    if (nameOrGlob.test(entry)) return (name) => matchesGlob(name, entry);
    // A word without one of these would be a selector for a key, but is more likely a name with a typo.
    const selector = /[=!<>(]/.test(entry) ? selectorOf(entry) : undefined;
    if (selector === undefined) {
      throw invalid(
        `the entry ${quoted(entry, 128)} of "clusters" is neither a name, nor a glob, nor a label selector`,
      );
    }
    return (_, labels) => selector(labels);
  });
}

/** Returns a label selector, or undefined if the text is not one. */
function selectorOf(text: string): ReturnType<typeof parseSelector> | undefined {
  try {
    return parseSelector(text);
  } catch {
    return undefined;
  }
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
