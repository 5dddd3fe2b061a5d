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

	"github.com/spf13/cobra"
)

func main() {
	collectRarely()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program. It returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once

	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := execute(ctx, root)
	if err != nil {
		fmt.Fprintf(stderr, "tensorpress: %s\n", message(cmd, err))
	}
	return statusOf(err)
}

// execute runs the command that the arguments name. A panic becomes an error:
// the runtime's own exit status would say that the command is wrong.
func execute(ctx context.Context, root *cobra.Command) (cmd *cobra.Command, err error) {
	defer func() {
		if v := recover(); v != nil {
			cmd, err = root, &runError{fmt.Errorf("internal error: %v\n%s", v, debug.Stack())}
		}
	}()
	return root.ExecuteContextC(ctx)
}
