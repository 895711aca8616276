/* Search from a folder: browsers start no Worker from file://, so the search runs in a hidden frame with a worker's few methods. */
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.scope = frame.contentWindow
      this.ready = new Promise(resolve => {
        this.scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}))
        this.scope.importScripts = (...urls) => Promise.all(urls.map(each => this.load(each)))
        this.load(url).then(resolve)
      })
    }
    load(url) {
      return new Promise((resolve, reject) => {
        const script = this.scope.document.createElement("script")
        Object.assign(script, {src: new URL(url, location), onload: resolve, onerror: reject})
        this.scope.document.body.appendChild(script)
      })
    }
    postMessage(data) {
      this.ready.then(() => this.scope.dispatchEvent(new this.scope.MessageEvent("message", {data})))
    }
    terminate() {
      this.scope.frameElement.remove()
    }
  }
