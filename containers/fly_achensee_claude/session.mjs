/**
 * Runs what this container is for as one session, which begins and ends with the container.
 *
 * What that is: the command that the container was given; else the program `start` of a project that has one; else
 * Claude Code, which does what CLAUDE_PROMPT says and ends, or without one talks to whoever sits at the terminal. It
 * asks before it does what the project's settings do not allow, unless CLAUDE_SKIP_PERMISSIONS is 1.
 */

import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { constants, hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = dirname(fileURLToPath(import.meta.url));
const FLUSH_SECONDS = 5;
const CREDENTIALS = ['ANTHROPIC_API_KEY', 'ANTHROPIC_AUTH_TOKEN', 'CLAUDE_CODE_OAUTH_TOKEN', 'ANTHROPIC_BASE_URL'];

const env = process.env;
env.SESSION_ID ||= `claude-${hostname()}`; // a restarted container has its name still, and goes on with its session
const { close, enter, finalizeSession, logAction } = await import('./hook_agent.mjs');

const skipsPermissions = env.CLAUDE_SKIP_PERMISSIONS === '1';
let wasTold = false; // to end
let child = null;
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, passOn); // before there is a child to miss one

function program() {
  const given = process.argv.slice(2);
  if (given.length) return given;
  return isProgram('./start') ? ['./start'] : claude();
}

function isProgram(path) {
  try {
    fs.accessSync(path, fs.constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function claude() {
  const prompt = env.CLAUDE_PROMPT ? ['--print', env.CLAUDE_PROMPT] : [];
  return ['claude', ...prompt, ...(skipsPermissions ? ['--dangerously-skip-permissions'] : [])];
}

/** Without any credentials Claude Code talks to the scripted model, if there is one; whether it does. */
function useScriptedModel() {
  if (!env.SCRIPTED_MODEL_URL || CREDENTIALS.some((name) => env[name])) return false;
  env.ANTHROPIC_BASE_URL = env.SCRIPTED_MODEL_URL;
  env.ANTHROPIC_AUTH_TOKEN = 'none'; // of a key it would ask whether it may be used
  return true;
}

/** Its exit code, as a shell gives it. */
function run([file, ...options]) {
  return new Promise((resolve) => {
    if (wasTold) return resolve(128 + constants.signals.SIGTERM);
    child = spawn(file, options, { stdio: 'inherit' });
    child.on('error', (error) => {
      console.error(`${file}: ${error.message}`);
      resolve(error.code === 'ENOENT' ? 127 : 126);
    });
    child.on('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  });
}

function passOn(signal) {
  if (signal === 'SIGINT' && process.stdin.isTTY) return; // the terminal has sent it to the child as well
  wasTold = true;
  child?.kill(signal);
}

/** What the hooks have left goes to the store before the end of the session does, which is the last word. */
function deliverHooks() {
  const options = [join(HERE, 'hook_agent.py'), 'flush', '--timeout', String(FLUSH_SECONDS)];
  spawnSync('python3', options, { stdio: 'ignore' });
}

const isScripted = useScriptedModel();
const command = program();
const config = { dangerouslySkipPermissions: skipsPermissions };
await enter({ initial: { source: 'container', command, config, host: hostname(), scriptedModel: isScripted } });
await logAction({ type: 'container_started', command, scriptedModel: isScripted });
const exitCode = await run(command);
deliverHooks();
await logAction({ type: 'container_ended', exitCode });
await finalizeSession({ status: wasTold ? 'cancelled' : exitCode ? 'failed' : 'success', exitCode });
await close();
process.exitCode = exitCode;
