// Command hub serves folders as repositories of the stand-in for the Hugging Face hub that
// the tests use, until it is ended: hub ORG/NAME=FOLDER...
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/tensorpress/tensorpress/internal/hubtest"
)

func main() {
	log.SetFlags(0)
	token := flag.String("token", "", "gives access to gated repositories")
	gated := flag.String("gated", "", "the repository that is gated")
	latency := flag.Duration("latency", 0, "of every answer")
	page := flag.Int("page", 0, "entries in a part of a list")
	failing := flag.Int("fail", 0, "one in `N` requests fails or is cut")
	verbose := flag.Bool("v", false, "list the requests at the end")
	flag.Parse()
	h := hubtest.New()
	defer h.Close()
	h.Token, h.Latency, h.Page = *token, *latency, *page
	if *failing > 0 {
		fail(h, *failing)
	}
	for _, arg := range flag.Args() {
		name, folder, ok := strings.Cut(arg, "=")
		if !ok {
			log.Fatal("want ORG/NAME=FOLDER")
		}
		commit, err := h.AddFolder(name, folder)
		if err != nil {
			log.Fatal(err)
		}
		log.Printf("%s is at %s", name, commit)
	}
	if *gated != "" {
		h.Restrict(*gated, false, true)
	}
	fmt.Println(h.Endpoint())
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt)
	<-end
	var bytes int64
	for _, r := range h.Requests() {
		bytes += r.Bytes
		if *verbose {
			log.Printf("%s %s%s %s: %d", r.Method, r.Host, r.Path, r.Range, r.Bytes)
		}
	}
	log.Printf("%d requests, %d bytes", len(h.Requests()), bytes)
}

// fail has one in n requests refused, and one cut short.
func fail(h *hubtest.Hub, n int) {
	var mu sync.Mutex
	h.Fail = func(i int, w http.ResponseWriter, _ *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if i%n == n-1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		if i%n == n/3 {
			time.Sleep(time.Second)
		}
		return false
	}
	h.Break = func(i int, _ *http.Request) int64 {
		if i%n == n/2 {
			return 100_000
		}
		return 0
	}
}
