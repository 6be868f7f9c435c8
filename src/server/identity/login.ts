// Decides which logins a username alone identifies.

/**
 * Returns whether a login is of the tailnet's own domain, in which no two logins have the same username. The username
 * of any other login (an invited or shared user's) may also belong to somebody in the tailnet: `alice@gmail.com`,
 * `alice@example.com`.
 *
 * `tailnet` is CurrentTailnet.Name of tailscaled's status, which is tailcfg.MapResponse.Domain. Its form depends on who
 * authenticates the tailnet's users (tailcfg/tailcfg.go; tailscale.com/kb/1013 and kb/1269):
 *
 * - Google Workspace, Microsoft Entra ID, Okta, OneLogin, OpenID Connect for a domain: `example.com`. Own logins:
 *   `alice@example.com`.
 * - A shared mail provider (gmail.com, outlook.com), Apple, a passkey: the owner's login, `alice@gmail.com`,
 *   `alice@passkey`. Own login: only that one.
 * - GitHub: `alice.github` or `alice@github` for one person, `example.org.github` for an organization. The logins are
 *   `alice@github`, and GitHub has only one alice. Own logins: `alice@github`; in a tailnet of one person, only that
 *   login.
 *
 * Tailscale announces that there will be new forms. If the tailnet's name has another form or is empty, no login is of
 * its own domain.
 */
export function isOfOwnDomain(login: string, tailnet: string): boolean {
  const at = login.lastIndexOf('@');
  const domain = login.slice(at + 1);
  // If there are two @, the part before the first one is not the whole username.
  if (at < 1 || login.indexOf('@') !== at || domain === '') return false;
  if (tailnet.includes('@')) return login === tailnet;
  if (/\.org\.github$/.test(tailnet)) return domain === 'github';
  if (/\.github$/.test(tailnet)) return login === tailnet.replace(/\.github$/, '@github');
  return domain === tailnet && tailnet.includes('.');
}
