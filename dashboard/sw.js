/* The service worker: shows what the server pushes while the page is closed, and takes away what nobody asks any more. */
const { registration } = self;
const show = (tag, { title, body, hash }, silent) =>
  registration.showNotification(title, { tag, body, silent, renotify: !silent, icon: new URL("icon.svg", self.location), data: hash });
async function close(tag) { for (const note of await registration.getNotifications({ tag })) note.close(); }
async function pushed({ asks, failures, isSilent }) {
  if (failures) await show("failures", failures, false);
  if (asks?.n) await show("asks", asks, isSilent);
  if (asks?.n !== 0) return;
  if (!failures) await show("asks", { title: "Answered" }, true);   // browsers want each message to show something
  await close("asks");
}
async function opened({ data: hash = "#/" }) {
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const page = pages.find(({ url }) => url.split("#")[0] === registration.scope);
  if (!page) return self.clients.openWindow(registration.scope + hash);
  page.postMessage(hash);
  return page.focus();
}
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("push", (event) => event.waitUntil(pushed(event.data.json())));
self.addEventListener("notificationclick", (event) => { event.notification.close(); event.waitUntil(opened(event.notification)); });
