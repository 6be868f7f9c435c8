// A tailnet's control plane, with DERP and STUN, that a test steers by HTTP.
//
//	tailnet-control 10.66.0.1:9000
//
// Beside Tailscale's own routes it has /test/tags (PUT, {"device": ["tag:tka"]}) and /test/grant (PUT, a PeerCapMap).
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stunserver"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
)

func main() {
	address := os.Args[1]
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		log.Fatal(err)
	}
	control := &testcontrol.Server{
		ExplicitBaseURL: "http://" + address,
		MagicDNSDomain:  "tail0000.ts.net",
		DNSConfig:       &tailcfg.DNSConfig{Proxied: true},
		DERPMap:         serveRelay(host),
		AllOnline:       true,
	}
	http.Handle("/", control)
	http.HandleFunc("PUT /test/tags", func(w http.ResponseWriter, r *http.Request) {
		var tags map[string][]string
		if !read(w, r, &tags) {
			return
		}
		for _, node := range control.AllNodes() {
			want, named := tags[node.Hostinfo.Hostname()]
			if named && !slices.Equal(node.Tags, want) {
				node.Tags = want
				control.UpdateNode(node)
			}
		}
	})
	http.HandleFunc("PUT /test/grant", func(w http.ResponseWriter, r *http.Request) {
		var rules tailcfg.PeerCapMap
		if read(w, r, &rules) {
			control.SetGlobalAppCaps(rules)
		}
	})
	log.Fatal(http.ListenAndServe(address, nil))
}

// Serves DERP and STUN on free ports of a host, and returns the map that tells nodes where they are.
func serveRelay(host string) *tailcfg.DERPMap {
	stun := stunserver.New(context.Background())
	if err := stun.Listen(net.JoinHostPort(host, "0")); err != nil {
		log.Fatal(err)
	}
	go stun.Serve()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		log.Fatal(err)
	}
	// It brings a certificate, which nodes are told not to verify.
	server := httptest.NewUnstartedServer(derpserver.Handler(derpserver.New(key.NewNode(), log.Printf)))
	server.Listener.Close()
	server.Listener = listener
	server.StartTLS()
	return &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: {
		RegionID:   1,
		RegionCode: "test",
		Nodes: []*tailcfg.DERPNode{{
			Name:             "1",
			RegionID:         1,
			HostName:         host,
			IPv4:             host,
			IPv6:             "none",
			STUNPort:         stun.LocalAddr().(*net.UDPAddr).Port,
			STUNTestIP:       host,
			DERPPort:         listener.Addr().(*net.TCPAddr).Port,
			InsecureForTests: true,
		}},
	}}}
}

// Reads a request's JSON; false where it has answered with what is wrong with it.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}
