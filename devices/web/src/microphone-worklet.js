// Hands the microphone's samples to the page, mixed to one channel, in packets of about 40 ms.

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.packet = new Float32Array(Math.round(sampleRate / 25));
    this.filled = 0;
  }

  process([channels]) {
    for (let i = 0; i < (channels[0]?.length ?? 0); i++) {
      this.packet[this.filled++] = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
      if (this.filled === this.packet.length) this.#send();
    }
    return true;
  }

  #send() {
    this.port.postMessage({ samples: this.packet.slice(), endS: currentTime + 128 / sampleRate });
    this.filled = 0;
  }
}

registerProcessor('microphone', Microphone);
