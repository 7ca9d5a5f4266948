// A page that is opened from a folder may not start a worker, so the search runs in a hidden frame there
if (location.protocol === 'file:') window.Worker = class extends EventTarget {
  constructor(url) {
    super()
    const frame = document.body.appendChild(Object.assign(document.createElement('iframe'), {hidden: true})), inner = frame.contentWindow
    const waiting = []
    this.postMessage = data => waiting.push(data)
    inner.postMessage = data => this.dispatchEvent(new MessageEvent('message', {data}))
    const script = Object.assign(frame.contentDocument.createElement('script'), {src: url})
    script.onload = () => {
      this.postMessage = data => inner.dispatchEvent(new MessageEvent('message', {data}))
      waiting.forEach(this.postMessage)
    }
    frame.contentDocument.body.append(script)
  }
}
