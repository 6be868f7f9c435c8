// The Go server's memberlist in its two forms: short JSON, and an HTML page with more fields.
import type { MemberState } from '../tka/types.ts';

/** A member in the Go server's gossip. */
export interface GossipMember {
  /** Its `tailscale.hostname`. Its ID is a hash of this and the port of its address. */
  readonly hostName: string;
  /** `IP:port` as the member claims it. A member that listens through tsnet claims `:7946`. */
  readonly address: string;
  readonly apiEndpoint: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: MemberState;
  readonly lastSeenSeconds: number;
  readonly isLocal: boolean;
}

/** Returns the Go server's JSON: three fields, with the port of the Kubernetes URL as apiPort. */
export function goRows(members: readonly GossipMember[]): unknown[] {
  return byId(members).map(({ apiEndpoint, labels }) => ({
    apiEndpoint,
    apiPort: Number(new URL(apiEndpoint).port || 443),
    labels: Object.keys(labels).length === 0 ? null : labels,
  }));
}

/** Returns the Go server's page, identical in every byte. */
export function goPage(members: readonly GossipMember[]): string {
  return `${head}${byId(members).map(rowOf).join('')}
		</tbody>
	</table>
</body>
</html>
`;
}

// Both forms are sorted by ID, which is a hash.
function byId(members: readonly GossipMember[]): GossipMember[] {
  const ids = new Map(members.map((member) => [member, goId(member)]));
  const id = (member: GossipMember) => ids.get(member) ?? '';
  return members.toSorted((a, b) => (id(a) < id(b) ? -1 : 1));
}

// This does not share code with the client, so that a mistake in one does not hide in the other.
function goId({ hostName, address }: GossipMember): string {
  const port = /:(\d+)$/.exec(address)?.[1] ?? '7946';
  let hash = 0x6c62272e07bb014262b821756295c58dn;
  for (const byte of Buffer.from(`${hostName}:${port}`)) {
    hash = BigInt.asUintN(128, hash * 0x0000000001000000000000000000013bn) ^ BigInt(byte);
  }
  return Buffer.from(hash.toString(16).padStart(32, '0'), 'hex').toString('base64');
}

const peerStates = { healthy: 'PEER_STATE_HEALTHY', suspected: 'PEER_STATE_SUSPECTED_DEAD', dead: 'PEER_STATE_DEAD' };
const classes = { healthy: 'healthy', suspected: 'suspected-dead', dead: 'dead' };

function rowOf(member: GossipMember): string {
  const labels = Object.entries(member.labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return `
			<tr>
				<td>${escaped(goId(member))}</td>
				<td>${escaped(member.address)}</td>
				<td>
					<dl>
						<dt>API Endpoint</dt>
						<dd>${escaped(member.apiEndpoint)}</dd>
						<dt>Labels</dt>
						<dd>
							<ul>
							${labels.map(([key, value]) => `\n\t\t\t\t\t\t\t\t<li><strong>${escaped(key)}:</strong> ${escaped(value)}</li>\n\t\t\t\t\t\t\t`).join('')}
							</ul>
						</dd>
					</dl>
				</td>
				<td class="${classes[member.state]}">
					${peerStates[member.state]}
				</td>
				<td>
                    
                        ${member.isLocal ? '0s' : goDuration(member.lastSeenSeconds)} ago
                    
                </td>
				<td>${member.isLocal}</td>
			</tr>
			`;
}

// Like Go's html/template.
const escapes: Readonly<Record<string, string>> = {
  '\0': '\ufffd',
  '"': '&#34;',
  '&': '&amp;',
  "'": '&#39;',
  '+': '&#43;',
  '<': '&lt;',
  '>': '&gt;',
};
const escaped = (text: string): string => text.replace(/[\0"&'+<>]/g, (char) => escapes[char] ?? char);

function goDuration(seconds: number): string {
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  return `${h > 0 ? `${h}h` : ''}${h > 0 || m > 0 ? `${m}m` : ''}${s}s`;
}

const head = `<!DOCTYPE html>
<html>
<head>
	<title>TKA Cluster Memberlist</title>
	<style>
		body { font-family: sans-serif; padding: 20px; }
		table { border-collapse: collapse; width: 100%; }
		th, td { border: 1px solid #ddd; padding: 8px; text-align: left; }
		th { background-color: #f2f2f2; }
		tr:nth-child(even) { background-color: #f9f9f9; }
		.healthy { color: green; }
		.suspected-dead { color: orange; }
		.dead { color: red; }
	</style>
</head>
<body>
	<h1>TKA Cluster Members</h1>
	<table>
		<thead>
			<tr>
				<th>ID</th>
				<th>Address</th>
				<th>State</th>
				<th>Peer State</th>
				<th>Last Seen</th>
				<th>Is Local</th>
			</tr>
		</thead>
		<tbody>
			`;
