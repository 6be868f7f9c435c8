import type { Confirmation } from '../../discovery/confirm.ts';
import {
  checkWritable,
  editKubeconfig,
  type KubeconfigView,
  type OurContext,
  previewKubeconfig,
} from '../../kubeconfig/index.ts';
import type { Session } from '../../session/session.ts';
import { TkaError } from '../../util/errors.ts';
import { quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { rememberSwitch } from '../contexts/previous.ts';
import { type ContextExtension, specOf } from '../contexts/spec.ts';
import { type ContextName, type ContextTarget, contextFor } from '../target/contexts.ts';

/** The name that `login` gives its context, and whether to make it the current one. */
export interface ContextOptions {
  readonly wanted: string | undefined;
  readonly isSwitch: boolean;
  /** The namespace to set; undefined keeps that of an existing context. */
  readonly namespace: string | undefined;
}

/** The result of an edit of the kubeconfig. */
export interface WrittenContext {
  readonly name: string;
  /** Why a new context does not have the name of its cluster; undefined if it has. */
  readonly notice: string | undefined;
  /** The namespace that was asked for. */
  readonly namespace: string | undefined;
  /** The context as it was before; undefined for a new one. */
  readonly before: OurContext | undefined;
  readonly previousContext: string | undefined;
  readonly currentContext: string | undefined;
}

/** Writes the context of one login. Its name depends on the content of the kubeconfig at the time of the edit. */
export class ContextWriter {
  readonly #context: Context;
  readonly #target: ContextTarget;
  readonly #options: ContextOptions;

  constructor(context: Context, target: ContextTarget, options: ContextOptions) {
    this.#context = context;
    this.#target = target;
    this.#options = options;
  }

  #nameIn(view: KubeconfigView): ContextName {
    const { tailnet } = this.#context.settings;
    return contextFor(view, this.#target, { tailnet, wanted: this.#options.wanted });
  }

  #oursIn(view: KubeconfigView): OurContext | undefined {
    const { name } = this.#nameIn(view);
    return view.ours.find((each) => each.name === name);
  }

  /** Checks that the context can be written, before the login changes anything. Throws TkaError if it cannot. */
  async check(view: KubeconfigView, apiEndpoint = 'https://not-known-yet.invalid'): Promise<void> {
    const { name } = this.#nameIn(view);
    if (view.contexts.has(name) && this.#oursIn(view) === undefined) {
      throw new TkaError(`context ${quoted(name)} already exists and is not managed by kubectl-tka`, {
        hints: ['use another name: --context NAME'],
      });
    }
    const previews = await previewKubeconfig(this.#context.kubeconfig, (v) => {
      const ours = this.#oursIn(v);
      return this.#change(this.#nameIn(v).name, {
        apiServer: ours?.apiServer ?? apiEndpoint,
        caData: ours?.caData ?? '',
        insecureSkipTlsVerify: ours?.insecureSkipTlsVerify ?? false,
      });
    });
    checkWritable(previews);
  }

  /** Throws TkaError if another TKA server would change the CA of the context's API server. */
  requireSameCluster(view: KubeconfigView, { server, caData, apiServer }: Confirmation): void {
    const ours = this.#oursIn(view);
    if (ours === undefined || ours.server === server || ours.apiServer !== apiServer) return;
    if ((ours.caData ?? '') === caData) return;
    const message = `${server} has another CA for ${apiServer} than context "${ours.name}" of ${ours.server}`;
    throw new TkaError(message, { hints: [`if you trust it, use its URL: kubectl tka login ${server}`] });
  }

  /** Writes the context, and remembers the previous one after a switch. Throws TkaError. */
  async write(session: Session, more: ContextExtension): Promise<WrittenContext> {
    let named: ContextName = { name: '' };
    let before: OurContext | undefined;
    const { previousContext, currentContext } = await editKubeconfig(this.#context.kubeconfig, (view) => {
      named = this.#nameIn(view);
      before = this.#oursIn(view);
      return this.#change(named.name, session, more);
    });
    if (this.#options.isSwitch) rememberSwitch(this.#context, { previousContext, currentContext });
    const { name, notice } = named;
    return { name, notice, namespace: this.#options.namespace, before, previousContext, currentContext };
  }

  #change(name: string, access: Parameters<typeof specOf>[3], more?: ContextExtension) {
    const { namespace } = this.#options;
    const spec = specOf(this.#context, name, this.#target.server, access, { ...more, namespace });
    return { upsert: [spec], ...(this.#options.isSwitch && { currentContext: name }) };
  }
}
