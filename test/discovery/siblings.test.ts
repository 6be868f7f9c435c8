import { describe, expect, it } from 'vitest';
import type { RememberedList, RememberedMember } from '../../src/discovery/memory.ts';
import { type CandidateOptions, siblingCandidates } from '../../src/discovery/siblings.ts';
import { memberOf } from './stand-in.ts';

const apiServer = 'https://api.us.example.com';
const entry = 'https://tka.example.ts.net';
const [us, us1, us2] = ['', '-1', '-2'].map((n) => `https://prod-us${n}.example.ts.net`) as [string, string, string];
const at = Date.now();

function row(server: string | null, more: Partial<RememberedMember> = {}): RememberedMember {
  const rest = { name: 'x', cluster: 'prod-us', server, listed: at, tried: 0, since: 0 };
  return { ...memberOf(apiServer), ...rest, word: 'stated', ...more };
}
const list = (...members: RememberedMember[]): RememberedList => ({ at, html: false, members });
const candidates = (lists: CandidateOptions['lists'], more: Partial<CandidateOptions> = {}) =>
  siblingCandidates(us, { apiServer, cluster: 'prod-us', kept: [], lists, isNamed: (s) => s === entry, ...more });

describe('siblingCandidates', () => {
  it.each<[string, RememberedMember]>([
    ['of another API server', row(us1, { apiEndpoint: 'https://api.eu.example.com' })],
    ['of another name', row(us1, { cluster: 'prod-eu' })],
    ['without a name (Go)', row(us1, { cluster: null })],
    ['that has no address', row(null)],
    ['that is the server itself', row(us)],
  ])('leaves a server out %s', (_, member) => {
    expect(candidates([[entry, list(member)]])).toEqual([]);
  });

  it('believes that a server is stated only if a list of a server says so that the user named', () => {
    const word = (lists: CandidateOptions['lists']) => candidates(lists)[0]?.word;
    expect(word([[entry, list(row(us1))]])).toBe('stated');
    expect(word([['https://found.example.ts.net', list(row(us1))]])).toBe('tailnet');
    expect(word([[entry, list(row(us1, { word: 'tailnet' }))]])).toBe('tailnet');
    const both: CandidateOptions['lists'] = [
      ['https://found.example.ts.net', list(row(us1))],
      [entry, list(row(us1))],
    ];
    expect(word(both)).toBe('stated');
  });

  it('names those first that were healthy in the newest list', () => {
    const old = { at: at - 5000, html: false, members: [row(us2, { state: 'dead' }), row(us1, { state: 'healthy' })] };
    const newest = list(row(us1, { state: 'dead' }), row(us2, { state: 'healthy' }));
    expect(candidates([[entry, newest]]).map(({ server }) => server)).toEqual([us2, us1]);
    const lists: CandidateOptions['lists'] = [
      [entry, old],
      ['https://found.example.ts.net', newest],
    ];
    expect(candidates(lists).map(({ server }) => server)).toEqual([us2, us1]);
  });

  it('takes one that is no longer listed last', () => {
    const gone = row(us1, { listed: at - 60_000 });
    expect(candidates([[entry, list(gone, row(us2))]]).map(({ server }) => server)).toEqual([us2, us1]);
  });

  it('takes what a context keeps, which nobody states', () => {
    expect(candidates([], { kept: [us, us1, us1] })).toEqual([{ server: us1, word: 'tailnet' }]);
    expect(candidates([[entry, list(row(us1))]], { kept: [us1] })).toEqual([{ server: us1, word: 'stated' }]);
  });
});
