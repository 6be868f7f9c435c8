// The wire format between TKA clients and TKA servers, as the servers really use it.

export const apiPath = '/api/v1alpha1';

export type Labels = Readonly<Record<string, string>>;

/** Answer of POST /login, GET /login and POST /logout. */
export interface LoginAnswer {
  readonly username: string;
  readonly role: string;
  /** RFC 3339. */
  readonly until: string;
  /** The name of a tagged device, whose `username` is its ID. Absent for a person. The Go server does not send it. */
  readonly node?: string;
}

/** Body of every refusal; some paths send `error` instead of `message`. */
export interface ErrorBody {
  readonly message: string;
  readonly advice?: readonly string[];
  readonly cause?: ErrorBody;
  /** The capability that the caller lacks, if the policy grants nothing (403). The Go server does not send it. */
  readonly capability?: string;
  /** The joined cluster in which the caller has no grant. Absent for the server's own cluster. */
  readonly cluster?: string;
  /** The login of the caller without a grant. */
  readonly login?: string;
  /** The tags of the calling device without a grant, which has no login. */
  readonly tags?: readonly string[];
}

/** Answer of GET /cluster-info. */
export interface ClusterInfo {
  readonly server_url: string;
  readonly insecure_skip_tls_verify: boolean;
  /** Base64 of PEM; may be empty. */
  readonly ca_data: string;
  readonly labels: Labels;
  /** The name of the cluster: `prod-us`. */
  readonly cluster?: string;
  /**
   * Where the sign-ins are stored: `UID of the namespace kube-system/namespace`. Servers with the same store serve the
   * same sign-ins.
   */
  readonly sign_in_store?: string;
}

export type MemberState = 'healthy' | 'suspected' | 'dead';

/** One row of GET /memberlist as JSON. The first three fields are all that the Go server sends. */
export interface MemberRow {
  readonly apiEndpoint: string;
  /** The TKA port from our server; the port of the API endpoint from the Go server. */
  readonly apiPort: number;
  readonly labels: Labels | null;
  /** The name of the TKA server. */
  readonly name?: string;
  /** The name of the member's cluster. */
  readonly cluster?: string;
  /** The member's TKA server, canonical URL. */
  readonly server?: string;
  readonly state?: MemberState;
  /** RFC 3339. */
  readonly lastSeen?: string;
  readonly version?: string;
  /** Of a joined cluster: the name of the login server's cluster. `server` then ends in `/clusters/NAME`. */
  readonly through?: string;
  /** True if a server of this joined cluster is a member of the mesh as well. */
  readonly direct?: boolean;
}

/** Answer of GET /kubeconfig: client-go's internal type, maps by name where a kubeconfig file has lists. */
export interface KubeconfigAnswer {
  readonly kind: 'Config';
  readonly apiVersion: 'v1';
  readonly clusters: Readonly<
    Record<
      string,
      {
        readonly server: string;
        readonly 'certificate-authority-data'?: string;
        readonly 'insecure-skip-tls-verify'?: boolean;
      }
    >
  >;
  readonly users: Readonly<Record<string, { readonly token?: string }>>;
  readonly contexts: Readonly<Record<string, { readonly cluster: string; readonly user: string }>>;
  readonly 'current-context': string;
}
