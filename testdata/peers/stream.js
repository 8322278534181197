// A server of what is sent bit by bit, over HTTP/2 and HTTP/1.1, by Node's own http2 and the package ws.
//   /events    two server-sent events; the second waits until somebody has asked for /release
//   /release   lets the second go
//   /echo      the body of the request, as it comes, and its length and SHA-256 as trailers
//   WebSocket  an echo
'use strict'
const crypto = require('crypto')
const fs = require('fs')
const http2 = require('http2')
const { WebSocketServer } = require('ws')

const waiting = []
const server = http2.createSecureServer({
  allowHTTP1: true,
  key: fs.readFileSync('/certs/server.key'),
  cert: fs.readFileSync('/certs/server.pem'),
})
server.on('request', (req, res) => {
  switch (req.url) {
    case '/events':
      res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
      res.write('data: first\n\n')
      waiting.push(() => res.end('data: second\n\n'))
      return
    case '/release':
      for (const go of waiting.splice(0)) go()
      res.end('released\n')
      return
    case '/echo': {
      const hash = crypto.createHash('sha256')
      let length = 0
      res.writeHead(200, { trailer: 'x-length, x-sha256' })
      req.on('data', (chunk) => { hash.update(chunk); length += chunk.length; res.write(chunk) })
      req.on('end', () => {
        res.addTrailers({ 'x-length': String(length), 'x-sha256': hash.digest('hex') })
        res.end()
      })
      return
    }
  }
  res.writeHead(404).end()
})
const sockets = new WebSocketServer({ noServer: true })
server.on('upgrade', (req, socket, head) => sockets.handleUpgrade(req, socket, head, (ws) => ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }))))
server.listen(Number(process.argv[2]), '127.0.0.1')
