// Peer: the Centrifuge library, which Centrifugo is built on. What comes in at /publish is published to one channel,
// to which the server subscribes every client of /live. Run as `centrifuge_fanout PORT`.
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/centrifugal/centrifuge"
	"github.com/gorilla/websocket"
)

const channel = "room"

func publish(node *centrifuge.Node, writer http.ResponseWriter, request *http.Request) {
	upgrader := websocket.Upgrader{}
	connection, err := upgrader.Upgrade(writer, request, nil)
	if err != nil {
		return
	}
	defer connection.Close()
	for {
		_, message, err := connection.ReadMessage()
		if err != nil {
			return
		}
		if _, err := node.Publish(channel, message); err != nil {
			log.Print(err)
		}
	}
}

func main() {
	node, err := centrifuge.New(centrifuge.DefaultConfig)
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{},
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel: {}},
		}, nil
	})
	node.OnConnect(func(*centrifuge.Client) {})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	http.Handle("/live", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}))
	http.HandleFunc("/publish", func(writer http.ResponseWriter, request *http.Request) {
		publish(node, writer, request)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, nil))
}
