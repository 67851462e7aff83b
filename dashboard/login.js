/* Logging in and out. */
import { access, fetched } from "./api.js";
import { renew } from "./asks.js";
import { attempt } from "./doing.js";
import { at } from "./dom.js";
import { forget, live, refresh } from "./live.js";
import { arriveAnew, drawing } from "./route.js";

function showLogin(words = "") {
  live.stop();
  live.say("out", "Logged out");
  at("login").hidden = false;
  const alert = at("login").querySelector("[role=alert]");
  alert.hidden = !words;
  alert.textContent = words;
  drawing.now();
  at("login").querySelector("input").focus();
}
at("login").querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  const { token } = event.target;
  try {
    await fetched("api/login", { method: "POST", body: { token: token.value } });
    token.value = "";
    at("login").hidden = true;
    refresh.failed = "";
    await live.connect();
    arriveAnew();
    renew();
  } catch (error) { showLogin(error.message); }
};
at("log-out").onclick = async () => { await attempt(() => fetched("api/login", { method: "DELETE" })); forget(); showLogin(); };
access.lost = showLogin;
