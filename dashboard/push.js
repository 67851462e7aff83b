/* Web Push: told though the page is closed, where it has HTTPS or is of this machine, and the server can. */
import { asked, fetched, query } from "./api.js";

const KEPT = "push";       // by which the subscription ends; there, the page itself tells of nothing
export async function begin() {
  localStorage.removeItem(KEPT);
  if (!navigator.serviceWorker || !globalThis.PushManager) return false;
  const { publicKey } = await asked("api/push");
  if (!publicKey) return false;
  const { pushManager } = await worker();
  const options = { userVisibleOnly: true, applicationServerKey: publicKey };
  const subscription = await pushManager.subscribe(options).catch(async () => {   // it may have one for another key
    await (await pushManager.getSubscription())?.unsubscribe();
    return pushManager.subscribe(options);
  });
  const { endpoint, keys } = subscription.toJSON();
  const { subscriptionId } = await asked("api/push", { method: "POST", body: { endpoint, keys } });
  localStorage.setItem(KEPT, subscriptionId);
  return true;
}
export async function worker() {
  navigator.serviceWorker.onmessage = ({ data }) => { location.hash = data; };
  await navigator.serviceWorker.register("dashboard/sw.js", { scope: "./" });
  return navigator.serviceWorker.ready;
}
export async function end() {
  const subscriptionId = localStorage.getItem(KEPT);
  if (!subscriptionId) return;
  localStorage.removeItem(KEPT);
  await fetched(`api/push?${query({ subscriptionId })}`, { method: "DELETE" });
  await (await (await navigator.serviceWorker.getRegistration("./"))?.pushManager.getSubscription())?.unsubscribe();
}
