// ServiceAccount tokens like those of a kube-apiserver, signed with a key that exists as long as the mesh.
import { createHash, generateKeyPairSync, randomUUID, sign, verify } from 'node:crypto';

const namespace = 'tka-dev';
const issuer = 'https://kubernetes.default.svc';

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Makes a key. Returns functions that sign and check tokens with it. */
export function makeIssuer() {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const kid = createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('base64url');
  return {
    /** Signs a token. `claims` replace the usual ones; a claim that is undefined is left out. */
    issue({ name, uid }: { name: string; uid: string }, exp: number, claims: Readonly<Record<string, unknown>> = {}) {
      const now = Math.floor(Date.now() / 1000);
      const payload = {
        aud: [issuer],
        exp,
        iat: now,
        iss: issuer,
        jti: randomUUID(),
        'kubernetes.io': { namespace, serviceaccount: { name, uid } },
        nbf: now,
        sub: `system:serviceaccount:${namespace}:${name}`,
        ...claims,
      };
      const text = `${encode({ alg: 'ES256', kid })}.${encode(payload)}`;
      const signature = sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' });
      return `${text}.${signature.toString('base64url')}`;
    },
    /** Returns the ServiceAccount's UID if the signature is ours and the token is valid at this time. */
    check(token: string, nowMs: number): string | undefined {
      const [header, body, signature, ...rest] = token.split('.');
      if (header === undefined || body === undefined || signature === undefined || rest.length > 0) return undefined;
      try {
        const good = verify(
          'sha256',
          Buffer.from(`${header}.${body}`),
          { key: publicKey, dsaEncoding: 'ieee-p1363' },
          Buffer.from(signature, 'base64url'),
        );
        if (!good) return undefined;
        const claims = JSON.parse(Buffer.from(body, 'base64url').toString());
        if (!(typeof claims.exp === 'number' && claims.exp * 1000 > nowMs)) return undefined;
        return claims['kubernetes.io']?.serviceaccount?.uid;
      } catch {
        return undefined;
      }
    },
  };
}
