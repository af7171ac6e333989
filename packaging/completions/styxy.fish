# Completions of styxy for fish.

function __styxy_complete
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    set -l current (commandline --current-token --cut-at-cursor)
    for line in (command styxy __complete -- $words[2..] "$current" 2>/dev/null)
        switch $line
            case ':file'
                __fish_complete_path $current
            case ':directory'
                __fish_complete_directories $current
            case ':command *'
                # The command line of the command itself, as if styxy were not there.
                set -l first (math (string replace ':command ' '' -- $line) + 2)
                complete --do-complete (string join ' ' -- (string escape -- $words[$first..]) $current)
            case '*'
                echo $line
        end
    end
end

complete --command styxy --no-files --keep-order --arguments '(__styxy_complete)'
