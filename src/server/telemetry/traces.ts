// Traces over OTLP. The libraries for it are loaded where `otel.endpoint` is set, and nowhere else.
import { hostname } from 'node:os';
import { cleanText } from '../../util/text.ts';
import { versionInfo } from '../../util/version.ts';
import type { Config } from '../config/config.ts';
import { shownValue } from '../config/keys.ts';
import type { Answered } from '../http/contract.ts';
import type { Log } from '../log/log.ts';
import type { ReconcilePass } from '../provisioner/provisioner.ts';

/** Tells a collector what was done, and how long it took. */
export interface Traces {
  request(answered: Answered): void;
  reconcile(pass: ReconcilePass): void;
  /** Sends what is not sent yet. */
  stop(): Promise<void>;
}

/**
 * Returns where `otel.endpoint` sends traces, and how: a URL by HTTP, `host:port` by gRPC as the Go server does. Port 4318
 * is OTLP's own for HTTP. For gRPC, the scheme of the URL says whether TLS is used.
 */
export function traceTarget(endpoint: string, insecure: boolean): { readonly grpc: boolean; readonly url: string } {
  const isUrl = endpoint.includes('://');
  const url = new URL(isUrl ? endpoint : `${insecure ? 'http' : 'https'}://${endpoint}`);
  if (!isUrl && url.port !== '4318') return { grpc: true, url: `${url.protocol}//${endpoint}` };
  if (url.pathname === '/') url.pathname = '/v1/traces';
  return { grpc: false, url: url.href };
}

/** Opens the traces; undefined where no endpoint is configured. */
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
  log.info(told, 'traces are sent by OTLP');
  const say = (message: string) => log.warn({ ...told, why: cleanText(message) }, 'traces cannot be sent');
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
      // What strangers make up is no name of a span.
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
        },
      );
    },
    reconcile: ({ name, namespace, ms, failed }) =>
      span('reconcile', ms, SpanKind.INTERNAL, failed, { 'k8s.namespace.name': namespace, 'tka.sign_in': name }),
    stop: () => provider.shutdown().catch((error) => say(String(error))),
  };
}
