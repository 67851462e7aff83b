"""Build: hook_agent_langchain.py lies in containers/, and is installed as a top-level module beside hook_agent.py."""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildModules(build_py):
    def find_modules(self) -> list[tuple[str, str, str]]:
        return [*super().find_modules(), ("", "hook_agent_langchain", "containers/hook_agent_langchain.py")]


setup(cmdclass={"build_py": BuildModules})
