import * as fs from 'node:fs';
import { cacheFolder, entryName, stateFolder } from '../../credential/entry.ts';
import { ListMemory, nameLine } from '../../discovery/memory.ts';
import { kubeconfigFiles, kubectlHome } from '../../kubeconfig/files.ts';
import { type GlancedContext, glanceContexts } from '../../kubeconfig/glance.ts';
import { homeFolder } from '../../settings/paths.ts';
import { composed } from '../../util/text.ts';

/** A word that completes the line, and its description. */
export type Completion = readonly [text: string, description: string];

/** Reads what this machine remembers of clusters. Loads each part on first use. */
export class Known {
  readonly #env: NodeJS.ProcessEnv;
  readonly #kubeconfig: string | undefined;
  #lines: Promise<readonly string[]> | undefined;

  /** `kubeconfig` is the value of --kubeconfig. */
  constructor(env: NodeJS.ProcessEnv, kubeconfig: string | undefined) {
    this.#env = env;
    this.#kubeconfig = kubeconfig;
  }

  /**
   * Returns clusters as lines of nameLine(), unparsed: there can be ten thousand, and few start with the typed text.
   */
  #all(): Promise<readonly string[]> {
    this.#lines ??= readLines(new ListMemory(stateFolder(this.#env, homeFolder(this.#env))));
    return this.#lines;
  }

  /**
   * Returns clusters, and managed contexts with other names, that start with the typed text; with `others`, contexts
   * that are not managed, too.
   */
  async names(typed: string, others = false): Promise<Completion[]> {
    const lines = await this.#all();
    // An ASCII text has one form only.
    const isPlain = /^[ -~]*$/.test(typed);
    const begins = (line: string) => line.startsWith(typed) || (!isPlain && composed(line).startsWith(typed));
    return [...lines.filter(begins).map(row), ...this.contexts(others)];
  }

  /** Returns the managed contexts; with `others`, all contexts. */
  contexts(others = false): Completion[] {
    return this.#glance(others).map(({ name }) => [name, 'context']);
  }

  #glance(others = false): GlancedContext[] {
    const env = this.#env;
    const named = { env, home: kubectlHome(env), cwd: process.cwd(), explicit: this.#kubeconfig };
    return glanceContexts(kubeconfigFiles(named), others);
  }

  /**
   * Returns the managed context of the first cluster that `exec` would choose and that has one; undefined if there is
   * none.
   */
  async firstContext(names: readonly string[], selector: string | undefined): Promise<string | undefined> {
    const contexts = this.#glance();
    if (names.length === 0 && selector === undefined) return contexts[0]?.name;
    const lines = await this.#all();
    const ofLine = (line: string) => serversOf(line).map((url) => contexts.find(({ server }) => server === url));
    if (selector !== undefined) {
      const { parseSelector } = await import('../../util/selector.ts');
      const matches = parseSelector(selector);
      const chosen = lines.filter((line) => matches(new Map(labelsOf(line).map(keyAndValue))));
      return chosen.flatMap(ofLine).find((context) => context !== undefined)?.name;
    }
    const { matchesGlob } = await import('../../util/glob.ts');
    const found = names
      .flatMap((name) => name.split(','))
      .flatMap((word) => {
        const exact = lines.filter((line) => matchesGlob(nameOf(line), word));
        const chosen = exact.length > 0 ? exact : lines.filter((line) => line.startsWith(word));
        return [contexts.find(({ name }) => name === word), ...chosen.flatMap(ofLine)];
      });
    return found.find((context) => context !== undefined)?.name;
  }

  /** Returns what the user can log out of: managed contexts, and clusters with a token on this machine. */
  async held(): Promise<Completion[]> {
    const folder = cacheFolder(this.#env);
    const entries = new Set(folder !== undefined && fs.existsSync(folder) ? fs.readdirSync(folder) : []);
    const signedIn = (line: string) => serversOf(line).some((server) => entries.has(entryName(server) ?? ''));
    const lines = entries.size === 0 ? [] : await this.#all();
    return [...lines.filter(signedIn).map(row), ...this.contexts()];
  }

  /** Returns the URLs of TKA servers. */
  async servers(): Promise<Completion[]> {
    return (await this.#all()).flatMap((line) => serversOf(line).map((server): Completion => [server, nameOf(line)]));
  }

  /** Returns the keys of labels, with some of their values as descriptions. */
  async labelKeys(): Promise<Completion[]> {
    const values = new Map<string, Set<string>>();
    for (const [key, value] of await this.#labels()) {
      const known = values.get(key) ?? new Set();
      values.set(key, known.add(value));
    }
    return [...values].map(([key, known]) => {
      const some = [...known].filter((value) => value !== '').slice(0, 3);
      return [key, [...some, ...(known.size > 3 ? ['…'] : [])].join(', ')];
    });
  }

  /** Returns the values that clusters have for a label. */
  async labelValues(key: string): Promise<Completion[]> {
    const counts = new Map<string, number>();
    for (const [name, value] of await this.#labels()) {
      if (name === key) counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    counts.delete('');
    return [...counts].map(([value, count]) => [value, count === 1 ? '1 cluster' : `${count} clusters`]);
  }

  async #labels(): Promise<[string, string][]> {
    return (await this.#all()).flatMap((line) => labelsOf(line).map(keyAndValue));
  }
}

async function readLines(memory: ListMemory): Promise<readonly string[]> {
  const lists: (readonly string[])[] = [];
  for (const server of memory.seeds()) {
    const names = memory.names(server);
    const list = names === undefined ? memory.read(server) : undefined;
    if (names !== undefined) lists.push(names);
    // Version 0.1.0 did not store names in a file of their own.
    if (list !== undefined) {
      const { rememberedClusters } = await import('../../discovery/remembered.ts');
      lists.push(rememberedClusters(list).map(nameLine));
    }
  }
  return lists.flat();
}

const nameOf = (line: string) => line.slice(0, line.indexOf('\t'));
const serversOf = (line: string) => filled(line.split('\t', 2)[1]?.split(' '));
const labelsOf = (line: string) => filled(line.split('\t', 3)[2]?.split(','));

function keyAndValue(label: string): [string, string] {
  const at = label.indexOf('=');
  return [label.slice(0, at), label.slice(at + 1)];
}

function filled(parts: readonly string[] = []): string[] {
  return parts.filter((part) => part !== '');
}

// Avoids arrays: for ten thousand lines, creating them takes longer than everything else.
function row(line: string): Completion {
  const start = line.indexOf('\t', line.indexOf('\t') + 1) + 1;
  let end = start - 1;
  for (let labels = 0; labels < 4 && end < line.length; labels++) {
    const comma = line.indexOf(',', end + 1);
    end = comma < 0 ? line.length : comma;
  }
  return [nameOf(line), line.slice(start, end) || 'cluster'];
}
