// Which logins a username alone names.

/**
 * Says whether a login is of the tailnet's own domain, in which no two logins have the same username. Anyone else's
 * username (an invited or shared user's) may be that of somebody in the tailnet: `alice@gmail.com`, `alice@example.com`.
 *
 * `tailnet` is CurrentTailnet.Name of tailscaled's status, which is tailcfg.MapResponse.Domain. Its forms, by who
 * authenticates the tailnet's users (tailcfg/tailcfg.go; tailscale.com/kb/1013 and kb/1269):
 *
 * - Google Workspace, Microsoft Entra ID, Okta, OneLogin, OpenID Connect for a domain: `example.com`. Own: `alice@example.com`.
 * - A shared mail provider (gmail.com, outlook.com), Apple, a passkey: the owner's login, `alice@gmail.com`,
 *   `alice@passkey`. Own: that login alone.
 * - GitHub: `alice.github` or `alice@github` for one person, `example.org.github` for an organization. The logins are
 *   `alice@github`, and GitHub has one alice. Own: `alice@github`; in a tailnet of one person, that login alone.
 *
 * Tailscale says that new forms will come: no login is of the own domain of a name of another form, or of none.
 */
export function isOfOwnDomain(login: string, tailnet: string): boolean {
  const at = login.lastIndexOf('@');
  const domain = login.slice(at + 1);
  // A username with an @ is not what the username up to the first @ says.
  if (at < 1 || login.indexOf('@') !== at || domain === '') return false;
  if (tailnet.includes('@')) return login === tailnet;
  if (/\.org\.github$/.test(tailnet)) return domain === 'github';
  if (/\.github$/.test(tailnet)) return login === tailnet.replace(/\.github$/, '@github');
  return domain === tailnet && tailnet.includes('.');
}
