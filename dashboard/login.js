/* Logging in and out. */
import { access, fetched, told } from "./api.js";
import { renew } from "./asks.js";
import { attempt } from "./doing.js";
import { at } from "./dom.js";
import { forget, live, refresh } from "./live.js";
import { arriveAnew, drawing } from "./route.js";

const form = at("login").querySelector("form");
function showLogin(words = "") {
  const alert = form.querySelector("[role=alert]");
  live.stop();
  live.say("out", "Logged out");
  at("login").hidden = false;
  alert.hidden = !words;
  alert.textContent = words;
  drawing.now();
  form.token.focus();
}
form.onsubmit = async (event) => {
  event.preventDefault();
  try {
    await told("api/login", { token: form.token.value });
    form.token.value = "";
    at("login").hidden = true;
    refresh.failed = "";
    await live.connect();
    arriveAnew();
    renew();
  } catch (error) { showLogin(error.message); }
};
at("log-out").onclick = async () => { await attempt(() => fetched("api/login", { method: "DELETE" })); forget(); showLogin(); };
access.lost = showLogin;
