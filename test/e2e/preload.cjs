// Loaded into the program under test by TKA_NODE_OPTIONS, which is how these tests see and stop what no outside shows.
// TKA_E2E_HOOK names what to do:
//   record FILE        at the end, write the modules that were asked for to FILE
//   full-disk          every write to a file fails
//   no-answer          requests come to nothing, and nothing waits for them
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

if (what === 'no-answer') {
  const { EventEmitter } = require('node:events');
  require('node:http').request = () => Object.assign(new EventEmitter(), { end() {}, destroy() {} });
}

if (what === 'stop') {
  const mark = fs.writeFileSync;
  const stop = () => {
    mark(second, String(process.pid));
    for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  };
  const paths = new Map();
  const { openSync } = fs;
  fs.openSync = (file, ...rest) => {
    const fd = openSync(file, ...rest);
    paths.set(fd, String(file));
    return fd;
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
  // Each is written to a temporary file within its lock, then renamed.
  const temporary = (file) =>
    /\.cache\/kubectl-tka\/[^/]*\+lock\/[0-9a-f]+\/[^/]*\+tmp$/.test(String(file)) && !/\+failed/.test(String(file));
  const token = (file) => /\.lock\/tka-[0-9a-f]+\.tmp$/.test(String(file));
  const at = (is) => (fd) => is(paths.get(fd));
  const entry = (from) => temporary(from);
  const kubeconfig = (from) => token(from);
  const half = (is) => () => {
    const { writeFileSync } = fs;
    fs.writeFileSync = (target, text, ...rest) => {
      if (!is(paths.get(target) ?? target)) return writeFileSync(target, text, ...rest);
      writeFileSync(target, String(text).slice(0, String(text).length >> 1));
      stop();
    };
  };
  const points = {
    'entry: temporary file made': () => hook('openSync', 'after', temporary),
    'entry: half-written': half(temporary),
    'entry: written': () => hook('futimesSync', 'before', at(temporary)),
    'entry: dated': () => hook('futimesSync', 'after', at(temporary)),
    'entry: synced': () => hook('fsyncSync', 'after', at(temporary)),
    'entry: before its rename': () => hook('renameSync', 'before', entry),
    'entry: after its rename': () => hook('renameSync', 'after', entry),
    'kubeconfig: locked': () => hook('openSync', 'after', token),
    'kubeconfig: half-written': half(token),
    'kubeconfig: synced': () => hook('fsyncSync', 'after', at(token)),
    'kubeconfig: before its rename': () => hook('renameSync', 'before', kubeconfig),
    'kubeconfig: after its rename': () => hook('renameSync', 'after', kubeconfig),
  };
  points[first]();
  module_.syncBuiltinESMExports();
}
