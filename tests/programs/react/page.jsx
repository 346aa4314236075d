/** A live view in React, written from the reference of the stream endpoint, with no code of this project. */

import RFB from "@novnc/novnc";
import { useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";

const POLL_MS = 250;

async function ask(url, key, signal) {
  const response = await fetch(url, { headers: { "x-api-key": key }, signal });
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail);
  return body;
}

/** A client polls the task's status first and asks for the stream once it is running. */
async function streamUrl(task, key, signal) {
  while ((await ask(task, key, signal)).status === "queued") {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  for (;;) {
    try {
      return (await ask(`${task}/stream`, key, signal)).stream_url;
    } catch (error) {
      const { status } = await ask(task, key, signal);
      if (status !== "running") throw error;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}

function LiveView({ task, apiKey }) {
  const screen = useRef(null);
  const [state, setState] = useState({ name: "loading" });
  const [attempt, setAttempt] = useState(0);

  useEffect(() => {
    const over = new AbortController();
    let rfb = null;
    const show = (next) => over.signal.aborted || setState(next);

    show({ name: "loading" });
    streamUrl(task, apiKey, over.signal).then((url) => {
      if (over.signal.aborted) return;
      show({ name: "connecting" });
      rfb = new RFB(screen.current, url, { wsProtocols: ["binary"], credentials: {} });
      rfb.viewOnly = true;
      rfb.scaleViewport = true;
      rfb.resizeSession = false;
      rfb.addEventListener("connect", () => show({ name: "connected" }));
      rfb.addEventListener("disconnect", (e) => {
        rfb = null;
        show(e.detail.clean
          ? { name: "disconnected", text: "Stream ended" }
          : { name: "error", text: "The connection failed" });
      });
      rfb.addEventListener("credentialsrequired", () => rfb.sendCredentials({}));
      rfb.addEventListener("securityfailure", (e) => show({ name: "error", text: e.detail.reason }));
    }).catch((error) => show({ name: "error", text: error.message }));

    return () => {
      over.abort();
      rfb?.disconnect();
    };
  }, [task, apiKey, attempt]);

  return (
    <section data-state={state.name}>
      <p>{state.text ?? state.name}</p>
      {state.name === "error" && <button onClick={() => setAttempt(attempt + 1)}>Retry</button>}
      <div ref={screen} style={{ width: 960, height: 540, opacity: state.name === "connected" ? 1 : 0.3 }} />
    </section>
  );
}

function Page() {
  const [shown, setShown] = useState(true);
  const query = new URLSearchParams(window.location.hash.slice(1));
  return (
    <>
      <button id="unmount" onClick={() => setShown(false)}>Close</button>
      {shown && <LiveView task={query.get("task")} apiKey={query.get("key")} />}
    </>
  );
}

createRoot(document.getElementById("root")).render(<Page />);
