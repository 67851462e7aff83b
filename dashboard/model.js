/* The model: events and answers in, what is to be shown out. Pure: no document, no network, no clock.

   Values are never changed, only made anew. An event is what section "Event" of the
   API has; a card is the metadata of a session and what it is at. tests/node tests it. */

export * from "./model/words.js";
export * from "./model/faces.js";
export * from "./model/feed.js";
export * from "./model/cards.js";
export * from "./model/home.js";
export * from "./model/log.js";
export * from "./model/documents.js";
export * from "./model/places.js";
