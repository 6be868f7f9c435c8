import { TkaError } from '../util/errors.ts';
import type { KubeconfigFiles } from './files.ts';
import type { KubeconfigEntry, SectionKey, Source } from './source.ts';
import type { ContextSpec } from './spec.ts';
import type { Field } from './splice.ts';
import type { PlainMap } from './value.ts';
import type { KubeconfigView, Merged } from './view.ts';

/** The changes of one edit of the kubeconfig files. */
export interface KubeconfigChange {
  readonly upsert?: readonly ContextSpec[];
  /** Names of managed contexts to remove. Names that do not exist are ignored. */
  readonly remove?: readonly string[];
  /** The new current context; null clears it, undefined keeps it. */
  readonly currentContext?: string | null | undefined;
  /** The new namespace of an existing context that `upsert` does not have; the context need not be managed. */
  readonly namespace?: { readonly context: string; readonly namespace: string } | undefined;
}

/** The changes to one file. */
export interface FileChange {
  readonly remove: Record<SectionKey, Set<string>>;
  readonly update: { readonly entry: KubeconfigEntry; readonly fields: readonly Field[] }[];
  readonly create: Record<SectionKey, PlainMap[]>;
  current: string | undefined;
}

/** The kubeconfig files as they were read. */
export interface KubeconfigState {
  readonly sources: readonly Source[];
  readonly merged: Merged;
  readonly view: KubeconfigView;
}

/** Collects the changes by file. */
export class FileChanges {
  readonly changes = new Map<Source, FileChange>();
  readonly #files: KubeconfigFiles;
  readonly #sources: readonly Source[];

  constructor(files: KubeconfigFiles, sources: readonly Source[]) {
    this.#files = files;
    this.#sources = sources;
  }

  of(source: Source): FileChange {
    const found = this.changes.get(source);
    if (found) return found;
    const remove = { clusters: new Set<string>(), contexts: new Set<string>(), users: new Set<string>() };
    const create = { clusters: [], contexts: [], users: [] };
    const fresh: FileChange = { remove, update: [], create, current: undefined };
    this.changes.set(source, fresh);
    return fresh;
  }

  /** Returns the changes of the file for new entries. Throws TkaError if there is none. */
  get ofDefault(): FileChange {
    const source = this.#sources.find(({ file }) => file === this.#files.defaultFile);
    if (source) return this.of(source);
    throw new TkaError('no kubeconfig to write to: KUBECONFIG is set but contains no file', {
      hints: ['unset KUBECONFIG, or use --kubeconfig FILE'],
    });
  }
}
