// What the tailnet's policy grants: the capability's rules (`{"role", "period", "priority"}`), judged as the Go server does.
import { goDuration } from '../../tka/duration.ts';
import { cleanText } from '../../tka/text.ts';
import { type Caller, Refusal } from '../http/contract.ts';

interface Rule {
  readonly role: string;
  readonly period: string;
  readonly priority: number;
}

/** The grant of the rules: the one of highest priority. Throws a Refusal. */
export function grantOf(rules: readonly unknown[], username: string): Pick<Caller, 'role' | 'periodMs' | 'problem'> {
  if (rules.length === 0) throw new Refusal(403, { message: 'No grant found for user' });
  const read = rules.map((rule) => readRule(rule, username));
  const best = read.reduce((a, b) => (b.priority > a.priority ? b : a));
  if (new Set(read.map((rule) => rule.priority)).size < read.length) {
    throw new Refusal(400, {
      message: 'Multiple capability rules with the same priority found',
      advice: ['Please ensure that no two capability rules have the same priority: which one holds could not be told'],
    });
  }
  const periodMs = best.period === '0' ? 0 : goDuration(best.period);
  // More than Go's can hold is none of its durations.
  if (periodMs !== undefined && periodMs <= 2 ** 63 / 1e6) return { role: best.role, periodMs };
  const problem = new Refusal(500, { message: 'Error parsing duration', cause: { message: goProblem(best.period) } });
  return { role: best.role, periodMs: 0, problem };
}

function readRule(rule: unknown, username: string): Rule {
  const wrong = (what: string): Refusal =>
    new Refusal(400, {
      message: 'Error unmarshaling api capability map',
      advice: [`Check the syntax of your api ACL for user ${cleanText(username, 64)}.`],
      cause: { message: what },
    });
  if (typeof rule !== 'object' || rule === null || Array.isArray(rule)) throw wrong('a rule is no object');
  const { role, period = '', priority = 0 } = rule as Readonly<Record<string, unknown>>;
  if (typeof role !== 'string' || role === '') throw wrong('the role of a rule must be the name of a ClusterRole');
  if (typeof period !== 'string') throw wrong('the period of a rule must be a text like 8h');
  if (typeof priority !== 'number' || !Number.isSafeInteger(priority)) {
    throw wrong('the priority of a rule must be a whole number');
  }
  return { role, period, priority };
}

/** What Go's time.ParseDuration says of what is no duration. */
function goProblem(period: string): string {
  const shown = JSON.stringify(cleanText(period, 64));
  if (/^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)$/.test(period)) return `time: missing unit in duration ${shown}`;
  const unit = /^[+-]?(?:[0-9.]+(?:ns|us|µs|μs|ms|s|m|h))*[0-9.]+([^0-9.]+)/.exec(period)?.[1];
  if (unit !== undefined && !/^(?:ns|us|µs|μs|ms|s|m|h)$/.test(unit)) {
    return `time: unknown unit ${JSON.stringify(cleanText(unit, 64))} in duration ${shown}`;
  }
  return `time: invalid duration ${shown}`;
}
