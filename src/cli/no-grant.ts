// Tells a user without a grant what to ask the maintainers of the tailnet's policy for.
import { missingGrant, NoGrant, policyPage, type Ungranted, unknownLogin } from '../tka/no-grant.ts';
import { joinedNameOf, placeOf } from '../util/url.ts';
import type { Context } from './context/context.ts';

type Facts = Pick<Context, 'settings' | 'tailnet' | 'remembered'>;

/** Returns the error with the cluster's name, the user's login, and the missing grant in its hint, ready to paste. */
export async function withMissingGrant(context: Facts, error: NoGrant): Promise<NoGrant> {
  const about = await withCaller(context, error.about);
  const { server, login, tags } = about;
  const name = context.remembered.nameOf(server);
  const grant = missingGrant(about, context.settings.tag);
  const isUnknown = login === '' && tags.length === 0;
  return new NoGrant(about, {
    place: name === undefined || joinedNameOf(server) !== undefined ? placeOf(server) : `${name} (${server})`,
    hints: [
      `ask a maintainer of the tailnet policy to add this grant (see ${policyPage}): ${grant}`,
      ...(isUnknown ? [`replace ${unknownLogin} with your login on the tailnet`] : []),
    ],
  });
}

/** Adds who this machine is on the tailnet, if the server did not say. The Go server never does. */
async function withCaller({ tailnet }: Facts, about: Ungranted): Promise<Ungranted> {
  if (about.login !== '' || about.tags.length > 0) return about;
  const status = await tailnet().catch(() => undefined);
  return status === undefined ? about : { ...about, login: status.login, tags: status.self.tags };
}
