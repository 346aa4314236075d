/** The part of noVNC's interface that the pages use (its docs/API.md). */
declare namespace NoVnc {
  interface Options {
    wsProtocols?: string[];
    credentials?: { username?: string; password?: string; target?: string };
  }

  interface EventDetails {
    connect: object;
    disconnect: { clean: boolean };
    credentialsrequired: { types: string[] };
    securityfailure: { status: number; reason?: string };
    clipboard: { text: string };
  }

  class RFB {
    constructor(target: Element, channel: string | WebSocket | RTCDataChannel, options?: Options);
    viewOnly: boolean;
    scaleViewport: boolean;
    resizeSession: boolean;
    qualityLevel: number;
    background: string;
    disconnect(): void;
    focus(): void;
    sendCredentials(credentials: object): void;
    sendKey(keysym: number, code: string, down?: boolean): void;
    clipboardPasteFrom(text: string): void;
    addEventListener<Name extends keyof EventDetails>(
      type: Name,
      listener: (event: CustomEvent<EventDetails[Name]>) => void,
    ): void;
  }
}
