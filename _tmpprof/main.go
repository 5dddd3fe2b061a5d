package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"time"

	tp "github.com/tensorpress/tensorpress"
)

func main() {
	// tmpprof PROFILE N op args...
	debug.SetGCPercent(400)
	n, _ := strconv.Atoi(os.Args[2])
	f, _ := os.Create(os.Args[1])
	pprof.StartCPUProfile(f)
	start := time.Now()
	for range n {
		var err error
		switch os.Args[3] {
		case "inspect":
			_, err = tp.Inspect(context.Background(), os.Args[4])
		case "plan":
			_, err = tp.Plan(os.Args[4], "", tp.Options{Layout: os.Args[5]})
		case "quantize":
			d := os.Args[7]
			o := tp.Options{Layout: os.Args[6], Dtype: &d, Preset: "none", Force: true}
			_, err = tp.Quantize(context.Background(), os.Args[4], os.Args[5], o)
		}
		if err != nil {
			panic(err)
		}
	}
	fmt.Println(time.Since(start) / time.Duration(n))
	pprof.StopCPUProfile()
	if len(os.Args) > 8 {
		m, _ := os.Create(os.Args[8])
		pprof.Lookup("allocs").WriteTo(m, 0)
		m.Close()
	}
}
