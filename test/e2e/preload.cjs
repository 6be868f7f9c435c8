// Loaded into the program under test by NODE_OPTIONS, which is how these tests see and stop what no outside shows.
// TKA_E2E_HOOK names what to do:
//   record FILE        at the end, write the modules that were asked for to FILE
//   full-disk          every write to a file fails
//   stop POINT MARK    at the named point of writing a file, make the file MARK and wait to be killed
'use strict';
const fs = require('node:fs');
const module_ = require('node:module');

const [what, first, second] = JSON.parse(process.env.TKA_E2E_HOOK ?? '[]');

if (what === 'record') {
  const asked = [];
  module_.registerHooks({
    resolve(specifier, context, next) {
      asked.push(specifier);
      return next(specifier, context);
    },
  });
  const write = fs.writeFileSync;
  process.on('exit', () => write(first, JSON.stringify({ asked, internal: process.moduleLoadList })));
}

if (what === 'full-disk') {
  const full = () => {
    throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
  };
  const { writeSync } = fs;
  fs.writeFileSync = full;
  fs.writeSync = (fd, ...rest) => (fd > 2 ? full() : writeSync(fd, ...rest));
  module_.syncBuiltinESMExports();
}

if (what === 'stop') {
  const mark = fs.writeFileSync;
  const stop = () => {
    mark(second, String(process.pid));
    for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  };
  const hook = (name, when, matches) => {
    const original = fs[name];
    fs[name] = (...args) => {
      const ours = matches(...args);
      if (ours && when === 'before') stop();
      const result = original(...args);
      if (ours && when === 'after') stop();
      return result;
    };
  };
  const any = () => true;
  const entry = (_, to) => /kubectl-tka[^/]*\/[^/]*$/.test(String(to)) && !/\+(?:served|failed)$/.test(String(to));
  const kubeconfig = (_, to) => /\.kube\/config$/.test(String(to));
  const temporary = (file) => /\+tmp$/.test(String(file));
  const token = (file) => /\.lock\/tka-[0-9a-f]+\.tmp$/.test(String(file));
  // The points of a write whole (cache entry), then those of the kubeconfig's.
  const points = {
    'temporary file made': () => hook('openSync', 'after', temporary),
    'entry written': () => hook('futimesSync', 'before', any),
    'entry dated': () => hook('futimesSync', 'after', any),
    'entry synced': () => hook('fsyncSync', 'after', any),
    'before the entry’s rename': () => hook('renameSync', 'before', entry),
    'after the entry’s rename': () => hook('renameSync', 'after', entry),
    'kubeconfig locked': () => hook('openSync', 'after', token),
    'before the kubeconfig’s rename': () => hook('renameSync', 'before', kubeconfig),
    'after the kubeconfig’s rename': () => hook('renameSync', 'after', kubeconfig),
    'kubeconfig half-written': () => {
      const original = fs.writeFileSync;
      fs.writeFileSync = (target, text, ...rest) => {
        if (!/current-context|kind: "?Config/.test(String(text))) return original(target, text, ...rest);
        original(target, String(text).slice(0, String(text).length >> 1));
        stop();
      };
    },
    'entry half-written': () => {
      const original = fs.writeFileSync;
      fs.writeFileSync = (target, text, ...rest) => {
        if (!/^tka1 /.test(String(text))) return original(target, text, ...rest);
        original(target, String(text).slice(0, String(text).length >> 1));
        stop();
      };
    },
  };
  points[first]();
  module_.syncBuiltinESMExports();
}
