// Command tensorpress quantizes safetensors checkpoints.
//
// Results go to standard output; progress, notes and errors to standard error.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress/internal/convert"
)

func main() {
	collectRarely()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes the program and returns its exit status.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := listen()
	defer stop()

	convert.Version = versionLine()
	root := newRoot()
	refuseOtherShells(root)
	if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
		describePlainly(root)
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	w := newWatching()
	cmd, err := root, refuseUnknown(root, args)
	if err == nil {
		cmd, err = execute(w.within(ctx), root)
	}
	if e := w.close(statusOf(err)); e != nil {
		fmt.Fprintf(stderr, "tensorpress: note: --metrics: %s\n", oneLine(e.Error()))
	}
	if err != nil {
		fmt.Fprintf(stderr, "tensorpress: %s\n", message(cmd, err))
		if note := afterError(err); note != "" && !isQuiet(cmd) {
			fmt.Fprintf(stderr, "tensorpress: note: %s\n", oneLine(note))
		}
	}
	return statusOf(err)
}

// listen returns a context that ends on a signal; a second signal ends the process at
// once. The closing of the terminal counts, unless nohup says otherwise. SIGPIPE is
// ignored: if the reader of the output is gone, writing returns an error.
func listen() (context.Context, context.CancelFunc) {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// execute runs the command that the arguments name.
func execute(ctx context.Context, root *cobra.Command) (cmd *cobra.Command, err error) {
	cmd = root
	err = guarded(func() (err error) {
		cmd, err = root.ExecuteContextC(ctx)
		return err
	})
	return cmd, err
}

// guarded turns a panic into an error, because the runtime's exit status for a panic,
// 2, would mean that the command line is wrong.
func guarded(do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &runError{fmt.Errorf("internal error: %v\n%s", v, debug.Stack())}
		}
	}()
	return do()
}

// patience is how long a command that writes nothing may take to end after a signal.
const patience = 500 * time.Millisecond

// reading runs a command that writes no checkpoint. After a signal it does not wait for
// a read that hangs, such as one from a remote disk: nothing is lost by leaving it.
func reading[T any](ctx context.Context, do func() (T, error)) (result T, err error) {
	finish := make(chan func() (T, error), 1)
	go func() {
		var result T
		err := guarded(func() (err error) {
			result, err = do()
			return err
		})
		finish <- func() (T, error) { return result, err }
	}()
	select {
	case f := <-finish:
		return f()
	case <-ctx.Done():
	}
	select {
	case f := <-finish:
		return f()
	case <-time.After(patience):
		return result, ctx.Err()
	}
}
