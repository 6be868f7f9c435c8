// Traces over OTLP. Loads the libraries for it only if `otel.endpoint` is set.
import { hostname } from 'node:os';
import { cleanText } from '../../util/text.ts';
import { versionInfo } from '../../util/version.ts';
import type { Config } from '../config/config.ts';
import { shownValue } from '../config/keys.ts';
import type { Answered } from '../http/contract.ts';
import type { Log } from '../log/log.ts';
import type { ReconcilePass } from '../provisioner/provisioner.ts';

/** Tells a collector what the server did, and how long it took. */
export interface Traces {
  request(answered: Answered): void;
  reconcile(pass: ReconcilePass): void;
  /** Sends the remaining spans. */
  stop(): Promise<void>;
}

/**
 * Returns where to send traces for this `otel.endpoint`, and how: over HTTP for a URL, over gRPC for `host:port`, as
 * the Go server does. Port 4318 is the OTLP port for HTTP, so it always means HTTP. For gRPC, the scheme of the
 * returned URL says whether to use TLS.
 */
export function traceTarget(endpoint: string, insecure: boolean): { readonly grpc: boolean; readonly url: string } {
  const isUrl = endpoint.includes('://');
  const url = new URL(isUrl ? endpoint : `${insecure ? 'http' : 'https'}://${endpoint}`);
  if (!isUrl && url.port !== '4318') return { grpc: true, url: `${url.protocol}//${endpoint}` };
  if (url.pathname === '/') url.pathname = '/v1/traces';
  return { grpc: false, url: url.href };
}

/** Opens the traces, or returns undefined if no endpoint is configured. */
export async function openTraces(config: Config, log: Log): Promise<Traces | undefined> {
  const endpoint = config.get('otel.endpoint');
  if (endpoint === undefined) return undefined;
  const { grpc, url } = traceTarget(endpoint, config.get('otel.insecure'));
  const [{ diag, DiagLogLevel, SpanKind, SpanStatusCode }, sdk, { OTLPTraceExporter }, { resourceFromAttributes }] =
    await Promise.all([
      import('@opentelemetry/api'),
      import('@opentelemetry/sdk-trace'),
      grpc ? import('@opentelemetry/exporter-trace-otlp-grpc') : import('@opentelemetry/exporter-trace-otlp-http'),
      import('@opentelemetry/resources'),
    ]);
  const told = { endpoint: shownValue('otel.endpoint', endpoint), protocol: grpc ? 'gRPC' : 'HTTP' };
  log.info(told, 'sending traces by OTLP');
  const say = (message: string) => log.warn({ ...told, why: cleanText(message) }, 'could not send traces');
  const silent = () => {};
  diag.setLogger({ error: say, warn: say, info: silent, debug: silent, verbose: silent }, DiagLogLevel.WARN);
  const resource = resourceFromAttributes({
    'service.name': 'tka-server',
    'service.version': versionInfo().version,
    'service.instance.id': hostname(),
  });
  const exporter = new OTLPTraceExporter({ url, timeoutMillis: 5_000 });
  const provider = new sdk.TracerProvider({ resource, spanProcessors: [new sdk.BatchSpanProcessor({ exporter })] });
  const tracer = provider.getTracer('tka-server');

  const span = (
    name: string,
    ms: number,
    kind: (typeof SpanKind)[keyof typeof SpanKind],
    failed: boolean,
    attributes: Readonly<Record<string, string | number | undefined>>,
  ) => {
    const given = Object.entries(attributes).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]]));
    const options = { kind, startTime: Date.now() - ms, attributes: Object.fromEntries(given) };
    const made = tracer.startSpan(name, options);
    if (failed) made.setStatus({ code: SpanStatusCode.ERROR });
    made.end();
  };
  return {
    request({ id, method, route, path, status, ms, caller }) {
      // Strangers can make up paths, so an unknown path must not name a span.
      span(
        route === undefined ? method : `${method} ${route}`,
        ms,
        SpanKind.SERVER,
        status === undefined || status >= 500,
        {
          'http.request.method': method,
          'url.path': path,
          'http.response.status_code': status,
          'tka.request.id': id,
          'user.name': caller?.login,
          'tka.role': caller?.role,
          'tka.login_server': caller?.through,
        },
      );
    },
    reconcile: ({ name, namespace, ms, failed }) =>
      span('reconcile', ms, SpanKind.INTERNAL, failed, { 'k8s.namespace.name': namespace, 'tka.sign_in': name }),
    stop: () => provider.shutdown().catch((error) => say(String(error))),
  };
}
