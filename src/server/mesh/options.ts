// What a member of the mesh is given, and what it is not started with.
import type { MemberRow, MemberState } from '../../tka/types.ts';
import { isHostPort } from '../../util/address.ts';
import { UsageError } from '../../util/errors.ts';
import { quoted } from '../../util/text.ts';
import type { Gate, Whois } from './gate.ts';
import type { MemberRecord } from './member.ts';
import type { Dial } from './peer.ts';
import { SharedKey } from './seal.ts';

export interface Clock {
  /** Milliseconds that only ever grow, from any start: all waiting is measured with it. */
  monotonic(): number;
  /** Milliseconds of the epoch: for what people read. */
  wall(): number;
}

export interface MembershipOptions {
  readonly name: string;
  readonly record: Omit<MemberRecord, 'left'>;
  readonly clock: Clock;
  /** 0 ≤ x < 1. */
  readonly random: () => number;
  readonly intervalMs: number;
  /** How many members are read each interval. */
  readonly factor: number;
  /** Rounds without an answer until a member is suspected, and until it is dead. */
  readonly stalenessThreshold: number;
  readonly deadThreshold: number;
  /** Where members may be before any is known: `host:port`. */
  readonly seeds?: readonly string[];
  readonly forgetAfterMs?: number;
  readonly maxMembers?: number;
  /** Bytes. */
  readonly maxMessage?: number;
  /** A member is new to us (`before` is undefined), or its record or state is. */
  readonly onChange?: (member: KnownMember, before: MemberState | undefined) => void;
  /** Another process has our name. */
  readonly onTwin?: () => void;
  /** What was read does not count. */
  readonly onSkip?: (name: string, why: string) => void;
}

/** A member, and its state as far as this one knows. */
export interface KnownMember {
  readonly name: string;
  readonly record: MemberRecord;
  readonly state: MemberState;
  /** Milliseconds of the epoch. */
  readonly lastSeen: number;
}

/** What this server says of itself. */
export type OwnRecord = Pick<MemberRecord, 'server' | 'apiEndpoint' | 'labels' | 'cluster' | 'version'>;

export interface MeshOptions {
  /** In lower case; no two members may have the same. Without a key: the first label of the node's DNS name. */
  readonly name: string;
  /** The host of `server` is where the others read this. */
  readonly record: OwnRecord;
  /** Addresses to listen on. */
  readonly hosts: readonly string[];
  /** `gossip.port`; 0 for any that is free. */
  readonly port: number;
  /** `gossip.key`, 32 characters at least: signs with the first, accepts all. Without it, `whois` and `tag` say who is admitted. */
  readonly key?: string | readonly string[] | undefined;
  readonly whois?: Whois | undefined;
  /** Who connects to us; `whois` if not given. */
  readonly whoCalls?: Whois | undefined;
  /** What all members' nodes carry: `tag:tka`. */
  readonly tag?: string | undefined;
  /** `gossip.bootstrapPeers`, as `host:port`. */
  readonly bootstrapPeers?: readonly string[] | undefined;
  /** Where to look for peers if there are no bootstrap peers: `host:port`. May throw. */
  readonly candidates?: (() => Promise<readonly string[]>) | undefined;
  readonly factor?: number | undefined;
  readonly intervalMs?: number | undefined;
  readonly stalenessThreshold?: number | undefined;
  readonly deadThreshold?: number | undefined;
  /** How a peer is reached; directly if not given. */
  readonly dial?: Dial | undefined;
  readonly log?: ((level: 'debug' | 'info' | 'warn', line: string) => void) | undefined;
  /** A member is new to us (`before` is undefined), what it says of itself is new, or its state is. */
  readonly onChange?: ((row: MemberRow, before: MemberState | undefined) => void) | undefined;
}

/** Returns the rule for who is admitted. Throws UsageError where everybody would be. */
export function gateOf({ key, whois, whoCalls = whois, tag }: MeshOptions): Gate {
  if (key !== undefined) return { key: new SharedKey(key, () => Date.now()), instances: new Map() };
  if (whois !== undefined && whoCalls !== undefined && tag !== undefined) return { whois, whoCalls, tag };
  throw new UsageError(
    'the mesh would be open to strangers: it needs gossip.key, or a tailnet whose nodes carry a tag',
  );
}

/** Throws UsageError for a bootstrap peer that is not `host:port`. */
export function checkAddress(text: string): void {
  if (!isHostPort(text.toLowerCase())) {
    throw new UsageError(`gossip.bootstrapPeers: ${quoted(text, 100)} is not host:port`);
  }
}

/** Throws UsageError for options with which no member can be. */
export function checkOptions(
  hosts: readonly string[],
  pace: Pick<MembershipOptions, 'factor' | 'intervalMs' | 'stalenessThreshold' | 'deadThreshold'>,
): void {
  const { factor, intervalMs, stalenessThreshold, deadThreshold } = pace;
  if (hosts.length === 0) throw new UsageError('the mesh has no address to listen on');
  if (!(Number.isInteger(factor) && factor > 0)) throw new UsageError('gossip.factor must be a whole number above 0');
  if (!(intervalMs >= 50)) throw new UsageError('gossip.interval must be 50ms at least');
  if (!(deadThreshold > stalenessThreshold && stalenessThreshold > 0)) {
    throw new UsageError('gossip.deadThreshold must be more than gossip.stalenessThreshold, and that more than 0');
  }
}
