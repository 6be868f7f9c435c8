// The options of a mesh member, and their checks.
import type { MemberRow, MemberState } from '../../tka/types.ts';
import { isHostPort } from '../../util/address.ts';
import { UsageError } from '../../util/errors.ts';
import { quoted } from '../../util/text.ts';
import type { Gate, Whois } from './gate.ts';
import type { JoinedRow } from './joined.ts';
import type { MemberRecord } from './member.ts';
import type { Dial } from './peer.ts';
import { SharedKey } from './seal.ts';

export interface Clock {
  /** Monotonic time in milliseconds, from any start. All waiting is measured with it. */
  monotonic(): number;
  /** Unix time in milliseconds, only for display. */
  wall(): number;
}

export interface MembershipOptions {
  readonly name: string;
  readonly record: Omit<MemberRecord, 'left'>;
  readonly clock: Clock;
  /** Returns a random number x with 0 ≤ x < 1. */
  readonly random: () => number;
  readonly intervalMs: number;
  /** Number of members to read in each interval. */
  readonly factor: number;
  /** Number of rounds without an answer after which a member is suspected, and after which it is dead. */
  readonly stalenessThreshold: number;
  readonly deadThreshold: number;
  /** Addresses to try while no member is known: `host:port`. */
  readonly seeds?: readonly string[];
  readonly forgetAfterMs?: number;
  readonly maxMembers?: number;
  /** Maximum size of an answer, in bytes. */
  readonly maxMessage?: number;
  /** Called when a member is new (`before` is undefined), or when its record or state has changed. */
  readonly onChange?: (member: KnownMember, before: MemberState | undefined) => void;
  /** Called when another process uses the name of this member. */
  readonly onTwin?: () => void;
  /** Called when a record that was read does not count. */
  readonly onSkip?: (name: string, why: string) => void;
}

/** A member, and its state as far as this member knows. */
export interface KnownMember {
  readonly name: string;
  readonly record: MemberRecord;
  readonly state: MemberState;
  /** Unix time in milliseconds. */
  readonly lastSeen: number;
}

/** What this server states about itself. */
export type OwnRecord = Pick<MemberRecord, 'server' | 'apiEndpoint' | 'labels' | 'cluster' | 'version'>;

export interface MeshOptions {
  /** Lower case, unique in the mesh. Without a key it must be the first label of the node's DNS name. */
  readonly name: string;
  /** The other members read the record from the host of `server`. */
  readonly record: OwnRecord;
  /** Addresses to listen on. */
  readonly hosts: readonly string[];
  /** `gossip.port`; 0 for any free port. */
  readonly port: number;
  /**
   * `gossip.key`, at least 32 characters each. The first key signs, all are accepted. Without a key, `whois` and `tag`
   * decide who is admitted.
   */
  readonly key?: string | readonly string[] | undefined;
  readonly whois?: Whois | undefined;
  /** Identifies callers that connect to this server. Default: `whois`. */
  readonly whoCalls?: Whois | undefined;
  /** The tag that the nodes of all members have: `tag:tka`. */
  readonly tag?: string | undefined;
  /** `gossip.bootstrapPeers`, as `host:port`. */
  readonly bootstrapPeers?: readonly string[] | undefined;
  /** Returns addresses where peers may be (`host:port`). Used only if there are no bootstrap peers. May throw. */
  readonly candidates?: (() => Promise<readonly string[]>) | undefined;
  readonly factor?: number | undefined;
  readonly intervalMs?: number | undefined;
  readonly stalenessThreshold?: number | undefined;
  readonly deadThreshold?: number | undefined;
  /** Connects to a peer. Default: a direct connection. */
  readonly dial?: Dial | undefined;
  readonly log?: ((level: 'debug' | 'info' | 'warn', line: string) => void) | undefined;
  /**
   * Returns the clusters that joined this server; undefined while it does not know them yet. Absent if it is not a
   * login server.
   */
  readonly joined?: (() => readonly JoinedRow[] | undefined) | undefined;
  /**
   * Returns the hash of the key with which the own cluster has joined a login server, or is about to (`keyHash`).
   * Undefined if there is none.
   */
  readonly federationKey?: (() => string | undefined) | undefined;
  /** Called when a member is new (`before` is undefined), or when its record or state has changed. */
  readonly onChange?: ((row: MemberRow, before: MemberState | undefined) => void) | undefined;
}

/** Returns the rule that decides who is admitted. Throws UsageError if the options would admit everybody. */
export function gateOf({ key, whois, whoCalls = whois, tag }: MeshOptions): Gate {
  if (key !== undefined) return { key: new SharedKey(key, () => Date.now()), instances: new Map() };
  if (whois !== undefined && whoCalls !== undefined && tag !== undefined) return { whois, whoCalls, tag };
  throw new UsageError('the mesh would admit every node: set gossip.key, or tag the nodes of the tailnet');
}

/** Throws UsageError for a bootstrap peer that is not `host:port`. */
export function checkAddress(text: string): void {
  if (!isHostPort(text.toLowerCase())) {
    throw new UsageError(`gossip.bootstrapPeers: ${quoted(text, 100)} is not host:port`);
  }
}

/** Throws UsageError if a member cannot run with these options. */
export function checkOptions(
  hosts: readonly string[],
  pace: Pick<MembershipOptions, 'factor' | 'intervalMs' | 'stalenessThreshold' | 'deadThreshold'>,
): void {
  const { factor, intervalMs, stalenessThreshold, deadThreshold } = pace;
  if (hosts.length === 0) throw new UsageError('the mesh has no address to listen on');
  if (!(Number.isInteger(factor) && factor > 0)) throw new UsageError('gossip.factor must be a whole number above 0');
  if (!(intervalMs >= 50)) throw new UsageError('gossip.interval must be at least 50ms');
  if (!(deadThreshold > stalenessThreshold && stalenessThreshold > 0)) {
    throw new UsageError(
      'gossip.deadThreshold must be greater than gossip.stalenessThreshold, which must be greater than 0',
    );
  }
}
