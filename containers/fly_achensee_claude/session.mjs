/**
 * Runs what this container is for as one session, which begins and ends with the container.
 *
 * What that is: the command that the container was given; else the program `start` of a project that has one; else
 * Claude Code, which does what CLAUDE_PROMPT says and ends, or without one talks to whoever sits at the terminal. It
 * asks before it does what the project's settings do not allow, unless CLAUDE_SKIP_PERMISSIONS is 1.
 */

import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = dirname(fileURLToPath(import.meta.url));
const FLUSH_SECONDS = 5;
const CREDENTIALS = ['ANTHROPIC_API_KEY', 'ANTHROPIC_AUTH_TOKEN', 'CLAUDE_CODE_OAUTH_TOKEN', 'ANTHROPIC_BASE_URL'];

const env = process.env;
env.SESSION_ID ||= `claude-${hostname()}`; // a restarted container has its name still, and goes on with its session
const { close, enter, finalizeSession, logAction } = await import('./hook_agent.mjs');

function isProgram(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function claude() {
  const options = env.CLAUDE_SKIP_PERMISSIONS === '1' ? ['--dangerously-skip-permissions'] : [];
  return ['claude', ...(env.CLAUDE_PROMPT ? ['--print', env.CLAUDE_PROMPT] : []), ...options];
}

function program() {
  const given = process.argv.slice(2);
  if (given.length) return given;
  return isProgram('./start') ? ['./start'] : claude();
}

/** Without any credentials Claude Code talks to the scripted model, if there is one; whether it does. */
function useScriptedModel() {
  if (!env.SCRIPTED_MODEL_URL || CREDENTIALS.some((name) => env[name])) return false;
  env.ANTHROPIC_BASE_URL = env.SCRIPTED_MODEL_URL;
  env.ANTHROPIC_API_KEY = 'none';
  return true;
}

/** Its exit code, as a shell gives it. */
function run([command, ...options]) {
  return new Promise((resolve) => {
    const child = spawn(command, options, { stdio: 'inherit' });
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) {
      process.on(signal, () => {
        wasTold ||= signal === 'SIGTERM';
        if (!(signal === 'SIGINT' && process.stdin.isTTY)) child.kill(signal); // a terminal tells the child itself
      });
    }
    child.on('error', (error) => {
      console.error(`${command}: ${error.message}`);
      resolve(127);
    });
    child.on('exit', (code, signal) => resolve(code ?? 128 + signals[signal]));
  });
}

/** What the hooks have left goes to the store before the end of the session does: it is the last word. */
function deliverHooks() {
  const options = [join(HERE, 'hook_agent.py'), 'flush', '--timeout', String(FLUSH_SECONDS)];
  spawnSync('python3', options, { stdio: 'ignore' });
}

const { signals } = (await import('node:os')).constants;
let wasTold = false;
const isScripted = useScriptedModel();
const command = program();
await enter({ initial: { source: 'container', command, host: hostname(), scriptedModel: isScripted } });
await logAction({ type: 'container_started', command, scriptedModel: isScripted });
const exitCode = await run(command);
deliverHooks();
await logAction({ type: 'container_ended', exitCode });
const status = wasTold ? 'cancelled' : exitCode ? 'failed' : 'success';
await finalizeSession({ status, exitCode });
await close();
process.exitCode = exitCode;
