// Confirms the first sign-in to a server without the tag with the user.
import { shortName } from '../../discovery/clusters.ts';
import { acceptHint, type TrustPolicy } from '../../discovery/trust.ts';
import { askYesNo, canAsk } from '../../terminal/ask.ts';
import { systemCode, TkaError } from '../../util/errors.ts';
import { quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import type { ClusterTarget } from '../target/by-name.ts';
import { NoCluster } from '../target/by-name.ts';

/**
 * Warns about the first sign-in to a server without the tag. If only a bare word named the server, asks the user on a
 * terminal, because a typo can be the name of anybody's device. Throws TkaError if the server must not be used.
 */
export async function requireTrust(
  context: Context,
  trust: TrustPolicy,
  target: ClusterTarget,
  name: string | undefined,
): Promise<void> {
  const { server, origin, cluster } = target;
  const verdict = await trust.verdict(server, origin);
  if (verdict === 'use') return;
  if (verdict === 'refuse') {
    const clusterName = cluster?.name ?? shortName(server, context.settings.tailnet);
    return trust.require({ server, provenance: 'tailnet', name: clusterName });
  }
  const why = await trust.whyNot(server);
  if (verdict === 'warn') return context.terminal.warn(`${why}; make sure you trust it (first sign-in)`);
  if (!canAsk()) throw noOneToAsk(target, name, why);
  if (!(await askYesNo(`${why}, and you have not used it before. Sign in to it?`)))
    throw new TkaError('cancelled', { exitCode: 130, hints: [acceptHint(server)] });
  trust.accept(server);
}

/** Returns the error for a bare word without a terminal. The word can be a mistyped cluster name. */
function noOneToAsk({ server, unlisted }: ClusterTarget, name: string | undefined, why: string): TkaError {
  if (unlisted instanceof NoCluster) {
    const hints = [...unlisted.hints, `to use a server that is not listed: kubectl tka login ${server}`];
    return new TkaError(unlisted.message, { hints, cause: unlisted });
  }
  if (unlisted instanceof TkaError) {
    const hints = [...unlisted.hints, acceptHint(server)];
    return new TkaError(`cannot look for ${quoted(name ?? '')}: ${unlisted.message}`, { hints, cause: unlisted });
  }
  return new TkaError(`${why}, and you have not used it before`, { hints: [acceptHint(server)] });
}

/** Remembers a server without the tag that the user named. From then on it may be used wherever a list states it. */
export async function rememberAccepted(
  context: Context,
  trust: TrustPolicy,
  { server, origin }: ClusterTarget,
): Promise<void> {
  if (origin !== 'named' && !trust.wasAccepted(server)) return;
  if ((await trust.isTagged(server)) === true) return;
  try {
    context.accepted.add(server);
  } catch (error) {
    context.terminal.warn(`cannot remember that you trust ${server}: ${systemCode(error) ?? error}`);
  }
}
