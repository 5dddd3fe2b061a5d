package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// addNames adds the flag of whose names an output has.
func addNames(f *pflag.FlagSet, to *string) {
	f.StringVar(to, "names", "", "`SIDE` whose names the output has: comfyui, diffusers, or keep (default keep)")
}

func sideNames() []string { return []string{"comfyui", "diffusers", "keep"} }

// rewriteFlags are the flags of commands that turn a quantized checkpoint into another
// one.
type rewriteFlags struct {
	dryRun, force, copyWeights bool
	shardSize                  size
	report                     reportFlag
	runFlags
}

func (r *rewriteFlags) addOutput(cmd *cobra.Command) {
	f := cmd.Flags()
	r.shardSize.least = 1
	f.Var(&r.shardSize, "shard-size", "most bytes of weights in a file of a folder (default 5GB)")
	f.BoolVar(&r.force, "force", false, "replace DEST if it is an output and holds nothing else")
	f.BoolVar(&r.copyWeights, "copy-weights", false, "also copy weight files that the output does not describe")
	f.BoolVar(&r.dryRun, "dry-run", false, "print what would be done; write nothing")
	r.report.add(cmd)
	group(f, "Output")
	r.runFlags.add(cmd)
}

// wants demands a destination, except in a dry run.
func (r *rewriteFlags) wants(cmd *cobra.Command, args []string) error {
	if r.dryRun {
		return wants(1, 2)(cmd, args)
	}
	return wants(2, 2)(cmd, args)
}

func (r *rewriteFlags) check(args []string) error {
	if err := r.runFlags.check(); err != nil {
		return err
	}
	return r.report.check(args)
}

// dest returns the second argument, "" if it is missing, as it may be in a dry run.
func (r *rewriteFlags) dest(args []string) string {
	if len(args) < 2 {
		return ""
	}
	return args[1]
}
