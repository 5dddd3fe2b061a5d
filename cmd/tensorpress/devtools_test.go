package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// chromium is a headless Chromium and one page in it, driven through the pipe that it
// offers for that: messages of JSON, each ended by a zero byte. What a test of pages needs
// of the protocol is a few calls; a library for all of it would stand in go.mod for
// everyone who uses this module.
type chromium struct {
	t       *testing.T
	in      io.Writer
	out     *bufio.Reader
	session string
	calls   int
	said    []string // errors and warnings in the console
	loaded  bool
}

// startChromium starts the browser, or skips the test where there is none.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" || runtime.GOOS == "windows" { // where no pipes can be passed on
		t.Skip("no chromium or google-chrome in PATH that can be driven: pages are not looked at")
	}
	args := []string{"--headless", "--remote-debugging-pipe", "--user-data-dir=" + t.TempDir(), "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // it has none for root; the pages are our own
	}
	theirIn, in := pipe(t)
	out, theirOut := pipe(t)
	cmd := exec.Command(path, append(args, "about:blank")...)
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	// so that nothing waits forever for a browser that hangs
	watch := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { watch.Stop() })
	c := &chromium{t: t, in: in, out: bufio.NewReaderSize(out, 1<<20)}
	t.Cleanup(func() {
		c.send("Browser.close", nil)
		in.Close()
		_ = cmd.Wait()
	})
	c.open()
	return c
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// open opens a page and asks to be told what it says.
func (c *chromium) open() {
	c.t.Helper()
	var target struct{ TargetID string }
	c.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	c.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	c.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		c.call(domain+".enable", nil, nil)
	}
}

func (c *chromium) send(method string, params any) {
	c.calls++
	message := map[string]any{"id": c.calls, "method": method}
	if params != nil {
		message["params"] = params
	}
	if c.session != "" {
		message["sessionId"] = c.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		c.t.Fatal(err)
	}
	_, _ = c.in.Write(append(text, 0)) // a browser that is gone does not answer
}

// answer is the result of a call, or an event.
type answer struct {
	ID     int
	Method string
	Result json.RawMessage
	Params json.RawMessage
	Error  *struct{ Message string }
}

func (c *chromium) next() answer {
	c.t.Helper()
	text, err := c.out.ReadBytes(0)
	if err != nil {
		c.t.Fatalf("chromium ended: %v", err)
	}
	var m answer
	if err := json.Unmarshal(bytes.TrimRight(text, "\x00"), &m); err != nil {
		c.t.Fatalf("%.200q: %v", text, err)
	}
	switch m.Method {
	case "Page.loadEventFired":
		c.loaded = true
	case "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded":
		c.said = append(c.said, fmt.Sprintf("%.500s", m.Params))
	}
	return m
}

// call sends a command and waits for its result.
func (c *chromium) call(method string, params, result any) {
	c.t.Helper()
	c.send(method, params)
	id := c.calls
	for {
		m := c.next()
		if m.ID != id {
			continue
		}
		if m.Error != nil {
			c.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if result == nil {
			return
		}
		if err := json.Unmarshal(m.Result, result); err != nil {
			c.t.Fatalf("%s: %v", method, err)
		}
		return
	}
}

// look sets the width of the screen, and whether it is dark.
func (c *chromium) look(width int, scheme string) {
	c.t.Helper()
	c.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}, nil)
	c.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// visit loads a page and waits for it.
func (c *chromium) visit(url string) {
	c.t.Helper()
	c.loaded = false
	c.call("Page.navigate", map[string]any{"url": url}, nil)
	for !c.loaded {
		c.next()
	}
}

// eval runs an expression in the page, from outside of what its policy allows, and returns
// its value.
func eval[T any](c *chromium, expression string) T {
	c.t.Helper()
	var found struct {
		Result           struct{ Value T }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	c.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &found)
	if found.ExceptionDetails != nil {
		c.t.Fatalf("%s: %s", expression, found.ExceptionDetails.Exception.Description)
	}
	return found.Result.Value
}

// press presses keys as a person does: Tab, Enter, Backspace, or letters.
func (c *chromium) press(keys ...string) {
	c.t.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13, "Backspace": 8, "Escape": 27}
	for _, key := range keys {
		down := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
		switch {
		case key == "Enter":
			down["text"] = "\r"
		case codes[key] == 0:
			down["text"] = key
			delete(down, "code")
			delete(down, "windowsVirtualKeyCode")
		}
		c.call("Input.dispatchKeyEvent", down, nil)
		c.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "windowsVirtualKeyCode": codes[key]}, nil)
	}
}

// picture saves what the page looks like in the folder TENSORPRESS_PICTURES, if it is set.
func (c *chromium) picture(name string) {
	c.t.Helper()
	folder := os.Getenv("TENSORPRESS_PICTURES")
	if folder == "" {
		return
	}
	var shot struct{ Data []byte }
	c.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	if err := os.WriteFile(folder+"/"+strings.ReplaceAll(name, "/", "-")+".png", shot.Data, 0o666); err != nil {
		c.t.Fatal(err)
	}
}
