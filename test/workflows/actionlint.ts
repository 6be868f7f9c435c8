// actionlint as a program, built once with Go.
import * as path from 'node:path';
import { type Build, buildOnce, findBuilt, go } from '../cluster/assets.ts';

const version = '1.7.12';

const build: Build<'actionlint'> = {
  folder: `actionlint-${version}`,
  names: ['actionlint'],
  what: `actionlint ${version}`,
  async make(bin, work) {
    const target = path.join(bin, process.platform === 'win32' ? 'actionlint.exe' : 'actionlint');
    await go(['mod', 'init', 'example.com/throwaway'], { cwd: work });
    await go(['get', '-tool', `github.com/rhysd/actionlint/cmd/actionlint@v${version}`], { cwd: work });
    await go(['build', '-trimpath', '-ldflags', '-s -w', '-o', target, 'github.com/rhysd/actionlint/cmd/actionlint'], {
      cwd: work,
    });
  },
};

/** Returns why there is no actionlint and it cannot be built; undefined if `actionlint` can succeed. */
export async function actionlintObstacle(): Promise<string | undefined> {
  if (findBuilt(build) !== undefined) return undefined;
  return go(['version'], { cwd: import.meta.dirname }).then(
    () => undefined,
    () => 'no go to build actionlint with',
  );
}

/** Finds or builds actionlint, and returns its path. Throws if the build fails. */
export async function actionlint(): Promise<string> {
  return (await buildOnce(build, (line) => void process.stderr.write(`${line}\n`))).actionlint;
}
