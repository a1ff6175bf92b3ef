"""The tarballs that `make npm` puts into dist/: the package, and the one with
the native addon for this platform."""

import json
import tarfile
from pathlib import Path

from machine import ROOT, Project, manifest, model, run

ESM = """
import { Model, MullamaError } from 'mullama'
const model = await Model.load(process.argv[2])
const request = ['The capital of France is', { maxTokens: 8, temperature: 0 }]
const text = await model.generate(...request)
let streamed = ''
for await (const token of model.generateStream(...request)) streamed += token.text
const error = await Model.load('nowhere.gguf').catch((error) => error)
console.log(text.length > 0, streamed === text, error instanceof MullamaError, error.code)
await model.close()
"""

CJS = """
const { Model, MullamaError } = require('mullama')
async function main() {
  const model = await Model.load(process.argv[2])
  const text = await model.generate('The capital of France is', 8)
  const error = await Model.load('nowhere.gguf').catch((error) => error)
  console.log(text.length > 0, error instanceof MullamaError, error.code)
  await model.close()
}
main()
"""

TYPESCRIPT = """
import { Model, MullamaError } from 'mullama'

export async function answer(path: string, signal: AbortSignal): Promise<string> {
  const model = await Model.load(path, { contextSize: 512, signal })
  try {
    let text = ''
    for await (const token of model.generateStream('Hello', { maxTokens: 4, signal })) text += token.text
    const result = await model.generateWith('Hello', { maxTokens: 4, stop: ['.'] })
    const tokens: number = result.usage.completionTokens
    return text + tokens
  } catch (error) {
    if (error instanceof MullamaError) return error.code
    throw error
  } finally {
    await model.close()
  }
}

// @ts-expect-error: an option that is not there
export const wrong = Model.load('model.gguf', { contextSizes: 512 })
"""

TSCONFIG = {
    "compilerOptions": {
        "module": "nodenext",
        "moduleResolution": "nodenext",
        "target": "es2022",
        "lib": ["es2022", "esnext.disposable"],
        "strict": True,
        "noEmit": True,
        "typeRoots": [str(ROOT / "node_modules/@types")],
        "types": ["node"],
    },
    "files": ["program.mts", "program.cts"],
}


def members(tarball: Path) -> set[str]:
    with tarfile.open(tarball) as archive:
        return {name.removeprefix("package/") for name in archive.getnames()}


def test_the_package_has_its_files_and_no_binary(tarballs: dict[str, Path]) -> None:
    inside = members(tarballs["main"])
    assert {"package.json", "README.md", "LICENSE", "LICENSE-MIT", "LICENSE-APACHE"} <= inside
    assert [name for name in inside if name.endswith((".node", ".so", ".rs", ".gguf", ".toml", ".tgz"))] == []


def test_the_platform_package_has_one_binary_and_the_licences(tarballs: dict[str, Path]) -> None:
    inside = members(tarballs["platform"])
    assert len([name for name in inside if name.endswith(".node")]) == 1
    assert {"LICENSE-MIT", "LICENSE-APACHE", "LICENSE-LLAMA-CPP"} <= inside


def test_the_package_asks_for_the_platform_package_of_its_version(tarballs: dict[str, Path]) -> None:
    main, platform = manifest(tarballs["main"]), manifest(tarballs["platform"])
    assert main["optionalDependencies"][platform["name"]] == main["version"] == platform["version"]  # type: ignore[index]
    assert "dependencies" not in main
    # Nothing runs on a user's machine when the package is installed.
    assert {"install", "preinstall", "postinstall"}.isdisjoint(main.get("scripts", {}))  # type: ignore[arg-type]


def test_it_is_installed_from_the_tarballs_alone(node_project: Project) -> None:
    folder, _ = node_project
    packages = [json.loads(path.read_text())["name"] for path in folder.glob("node_modules/**/package.json")]
    assert len(packages) == 2


def test_an_es_module_generates(node_project: Project) -> None:
    folder, env = node_project
    (folder / "program.mjs").write_text(ESM)
    assert run("node", "program.mjs", model(), cwd=folder, env=env) == "true true true model_not_found\n"


def test_a_commonjs_module_generates(node_project: Project) -> None:
    folder, env = node_project
    (folder / "program.cjs").write_text(CJS)
    assert run("node", "program.cjs", model(), cwd=folder, env=env) == "true true model_not_found\n"


def test_typescript_accepts_right_use_and_refuses_wrong_use(node_project: Project) -> None:
    folder, env = node_project
    (folder / "program.mts").write_text(TYPESCRIPT)
    (folder / "program.cts").write_text(TYPESCRIPT)
    (folder / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    run("node", ROOT / "node_modules/typescript/bin/tsc", "-p", ".", cwd=folder, env=env)
