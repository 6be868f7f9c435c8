import type { X509Certificate } from 'node:crypto';
import { failed, ok, type Verdict, warning } from './check.ts';

const day = 86_400_000;
/**
 * Tailnet certificates last 90 days and are renewed a month before they expire. With two weeks left, renewal has
 * failed.
 */
const soon = 14 * day;

/** Checks a server's certificate. `code` is OpenSSL's verification error, if there is one. */
export function certificateVerdict(
  certificate: X509Certificate | undefined,
  seen: { origin: string; code: string | undefined; clockHint: string; now?: number },
): Verdict {
  const { origin, code, now = Date.now() } = seen;
  const { hostname, port } = new URL(origin);
  if (certificate === undefined) return failed(`${origin} presents no certificate`);
  const until = Date.parse(certificate.validTo);
  const left = Math.floor((until - now) / day);
  const date = Number.isNaN(until) ? certificate.validTo : new Date(until).toISOString().slice(0, 10);
  const renew = `on the server: tailscale cert ${hostname}`;
  if (code === undefined) {
    const good = `its certificate is valid for ${hostname} until ${date}, for ${left} ${left === 1 ? 'day' : 'days'} more`;
    return until - now < soon ? warning(good, renew) : ok(good);
  }
  if (code === 'CERT_HAS_EXPIRED') return failed(`its certificate has expired on ${date}`, renew);
  if (code === 'CERT_NOT_YET_VALID') {
    return failed(`its certificate is not valid before ${certificate.validFrom}: check the clock`, seen.clockHint);
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    const names = (certificate.subjectAltName ?? '').split(', ');
    const name = names.map((each) => /^DNS:([a-z0-9][a-z0-9.-]*)$/i.exec(each)?.[1]).find((each) => each !== undefined);
    const hint =
      name && `use the name in the certificate: kubectl tka login https://${name}${port === '' ? '' : `:${port}`}`;
    return failed(`its certificate is for ${names.join(', ') || 'no name'}, not for ${hostname}`, hint ?? null);
  }
  const issuer = certificate.issuer.split('\n').at(-1);
  return failed(
    `its certificate is not signed by a trusted authority (${issuer}; ${code})`,
    'for a private CA: kubectl tka config tls.caFile FILE',
  );
}
