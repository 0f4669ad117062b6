# fish completion for shmdctl(1): commands, options, their values, and names from the broker.

# Names in the broker's tree. A broker that is slow must not hang the shell.
function __shmdctl_names
    set -l tokens (commandline -opc)
    set -l socket
    for i in (seq (count $tokens))
        switch $tokens[$i]
            case '--socket=*'
                set socket $tokens[$i]
            case --socket
                set -l next (math $i + 1)
                test $next -le (count $tokens); and set socket --socket=$tokens[$next]
        end
    end
    shmdctl $socket ls -R --timeout=1s 2>/dev/null
end

set -l commands create put publish cat ticket redeem tickets revoke bell ls stat holders map rm mv ln freeze expire mkdir rmdir chmod chown acl why wait watch df reload state upgrade ping stats metrics top doctor version help
set -l none "not __fish_seen_subcommand_from $commands"
set -l modes '0600 0640 0644 0660 0666 0755 1777'

complete -c shmdctl -f

complete -c shmdctl -l socket -r -F -d 'Socket of the broker'
complete -c shmdctl -l json -d 'Print JSON'
complete -c shmdctl -l bytes -d 'Print sizes as plain numbers'
complete -c shmdctl -l timeout -x -a '500ms 1s 10s 1min infinity' -d 'Give up after so long'
complete -c shmdctl -s q -l quiet -d 'Say nothing about what was done'
complete -c shmdctl -s h -l help -d 'Show help'
complete -c shmdctl -l usage -d 'Show usage'
complete -c shmdctl -s V -l version -d 'Show versions'

complete -c shmdctl -n $none -a create -d 'Make a region, or open one'
complete -c shmdctl -n $none -a put -d 'Copy a file or standard input into a region'
complete -c shmdctl -n $none -a publish -d 'Give a region without a name its name'
complete -c shmdctl -n $none -a cat -d 'Write a region to standard output'
complete -c shmdctl -n $none -a ticket -d 'Issue a string that is good for a region'
complete -c shmdctl -n $none -a redeem -d 'Write the region of a ticket to standard output'
complete -c shmdctl -n $none -a tickets -d 'List the tickets of a region'
complete -c shmdctl -n $none -a revoke -d 'End tickets'
complete -c shmdctl -n $none -a bell -d 'Ring the doorbell of a region, or wait for it'
complete -c shmdctl -n $none -a ls -d 'List a directory'
complete -c shmdctl -n $none -a stat -d 'Show all about a region or directory'
complete -c shmdctl -n $none -a holders -d 'Show who holds a region'
complete -c shmdctl -n $none -a map -d 'Draw which pages of a region are where'
complete -c shmdctl -n $none -a rm -d 'Take the names of regions away'
complete -c shmdctl -n $none -a mv -d 'Move names, or let two change places'
complete -c shmdctl -n $none -a ln -d 'Give a region one more name'
complete -c shmdctl -n $none -a freeze -d 'Let a region be written no more'
complete -c shmdctl -n $none -a expire -d 'Let a name end after a time'
complete -c shmdctl -n $none -a mkdir -d 'Make directories'
complete -c shmdctl -n $none -a rmdir -d 'Remove empty directories'
complete -c shmdctl -n $none -a chmod -d 'Change who may do what'
complete -c shmdctl -n $none -a chown -d 'Change owner and group'
complete -c shmdctl -n $none -a why -d 'Explain what may be done, or why not'
complete -c shmdctl -n $none -a wait -d 'Wait for a name, or until a region is let go'
complete -c shmdctl -n $none -a acl -d 'Show or change who else may do what'
complete -c shmdctl -n $none -a watch -d 'Print what happens to names'
complete -c shmdctl -n $none -a df -d 'Show limits and use'
complete -c shmdctl -n $none -a reload -d 'Compile the policy files and put them in force'
complete -c shmdctl -n $none -a state -d 'Copy what outlives the broker, and check it'
complete -c shmdctl -n $none -a upgrade -d 'Replace the broker by the program that is installed now'
complete -c shmdctl -n $none -a ping -d 'Ask whether the broker answers, and how fast'
complete -c shmdctl -n $none -a stats -d 'Show figures of the broker since its start'
complete -c shmdctl -n $none -a metrics -d 'Print the figures as OpenMetrics text'
complete -c shmdctl -n $none -a top -d 'Show accounts and regions, live'
complete -c shmdctl -n $none -a doctor -d 'Look for what is wrong, and say what to do'
complete -c shmdctl -n $none -a version -d 'Show versions of tool, library and broker'
complete -c shmdctl -n $none -a help -d 'Show help'

complete -c shmdctl -n '__fish_seen_subcommand_from create put publish cat ticket tickets revoke bell ls stat holders map rm mv ln freeze expire mkdir rmdir chmod chown acl why wait watch' \
    -a '(__shmdctl_names)'
complete -c shmdctl -n '__fish_seen_subcommand_from help' -a "$commands"
complete -c shmdctl -n '__fish_seen_subcommand_from chown' -a '(__fish_complete_users)'
complete -c shmdctl -n '__fish_seen_subcommand_from chmod' -a $modes
complete -c shmdctl -n '__fish_seen_subcommand_from put redeem' -F

complete -c shmdctl -n '__fish_seen_subcommand_from create put mkdir' -s m -l mode -x -a $modes -d 'Mode, octal'
complete -c shmdctl -n '__fish_seen_subcommand_from create' -l exclusive -d 'Fail if the name is taken'
complete -c shmdctl -n '__fish_seen_subcommand_from create' -l open -d 'Open what has the name'
complete -c shmdctl -n '__fish_seen_subcommand_from create' -l lifetime -x -a 'named session counted' -d 'How long it lives'
complete -c shmdctl -n '__fish_seen_subcommand_from create' -l huge -x -a '2M 1G' -d 'Size of huge pages'
complete -c shmdctl -n '__fish_seen_subcommand_from create' -l freezable -d 'Let it be frozen later'
complete -c shmdctl -n '__fish_seen_subcommand_from create put publish' -l ttl -x -a '10min 1h 12h' -d 'Let its name end after so long'
complete -c shmdctl -n '__fish_seen_subcommand_from expire' -a '10min 1h 12h never'
complete -c shmdctl -n '__fish_seen_subcommand_from put' -l freeze -d 'Freeze it before it gets its name'
complete -c shmdctl -n '__fish_seen_subcommand_from freeze' -l single-writer -d 'Who has it mapped for writing writes on'
complete -c shmdctl -n '__fish_seen_subcommand_from create put' -l reserve -d 'Allocate all its memory first'
complete -c shmdctl -n '__fish_seen_subcommand_from create' -l hold -d 'Keep it until killed'
complete -c shmdctl -n '__fish_seen_subcommand_from put publish' -l replace -d 'Take the name from a region that has it'
complete -c shmdctl -n '__fish_seen_subcommand_from ticket tickets revoke' -s i -l id -x -d 'By its number'
complete -c shmdctl -n '__fish_seen_subcommand_from bell' -a 'ring wait'
complete -c shmdctl -n '__fish_seen_subcommand_from bell' -s c -l count -x -d 'How many rings'
complete -c shmdctl -n '__fish_seen_subcommand_from bell' -s i -l id -x -d 'By its number'
complete -c shmdctl -n '__fish_seen_subcommand_from ticket' -l write -d 'Good for read-write grants'
complete -c shmdctl -n '__fish_seen_subcommand_from ticket' -l uses -x -d 'Good for so many grants'
complete -c shmdctl -n '__fish_seen_subcommand_from ticket' -l ttl -x -a '30s 10min 1h' -d 'Good for so long'
complete -c shmdctl -n '__fish_seen_subcommand_from ticket' -s u -l user -x -a '(__fish_complete_users)' -d 'Only for this user'
complete -c shmdctl -n '__fish_seen_subcommand_from redeem' -l hold -d 'Hold it until killed'
complete -c shmdctl -n '__fish_seen_subcommand_from revoke' -l all -d 'All tickets of a region'
complete -c shmdctl -n '__fish_seen_subcommand_from ls' -s l -l long -d 'Show details'
complete -c shmdctl -n '__fish_seen_subcommand_from ls' -s R -l recursive -d 'All that is below'
complete -c shmdctl -n '__fish_seen_subcommand_from ls' -s o -l orphans -d 'Regions without a name'
complete -c shmdctl -n '__fish_seen_subcommand_from stat holders' -s i -l id -x -d 'By its number'
complete -c shmdctl -n '__fish_seen_subcommand_from stat' -s H -l holders -d 'Also show who holds it'
complete -c shmdctl -n '__fish_seen_subcommand_from stat' -s p -l pages -d 'Also show how much is in memory and in swap'
complete -c shmdctl -n '__fish_seen_subcommand_from mv' -s n -l no-replace -d 'Fail if the new name is taken'
complete -c shmdctl -n '__fish_seen_subcommand_from mv' -s x -l exchange -d 'Let the two change places'
complete -c shmdctl -n '__fish_seen_subcommand_from mkdir' -s p -l parents -d 'Make missing directories above it'
complete -c shmdctl -n '__fish_seen_subcommand_from wait' -s u -l unheld -d 'Until nobody holds the region'
complete -c shmdctl -n '__fish_seen_subcommand_from wait' -s f -l frozen -d 'Until the region is frozen'
complete -c shmdctl -n '__fish_seen_subcommand_from why' -a 'open write create mkdir unlink rmdir rename link list stat chmod chown wait watch freeze ticket holders'
complete -c shmdctl -n '__fish_seen_subcommand_from why' -l as -x -a '(__fish_complete_users)' -d 'For another user'
complete -c shmdctl -n '__fish_seen_subcommand_from why' -s s -l size -x -d 'Of the region to create'
complete -c shmdctl -n '__fish_seen_subcommand_from acl' -s m -l modify -x -d 'Add or change entries'
complete -c shmdctl -n '__fish_seen_subcommand_from acl' -s x -l remove -x -d 'Remove entries'
complete -c shmdctl -n '__fish_seen_subcommand_from acl' -l set -x -d 'Replace all entries'
complete -c shmdctl -n '__fish_seen_subcommand_from acl' -s b -l remove-all -d 'Remove all but owner, group and others'
complete -c shmdctl -n '__fish_seen_subcommand_from acl' -s k -l remove-default -d 'Remove the default ACL'
complete -c shmdctl -n '__fish_seen_subcommand_from acl' -s d -l default -d 'The entries are of the default ACL'
complete -c shmdctl -n '__fish_seen_subcommand_from acl' -s n -l no-mask -d 'Leave the mask as it is'
complete -c shmdctl -n '__fish_seen_subcommand_from acl' -l numeric -d 'Show numbers instead of names'
complete -c shmdctl -n '__fish_seen_subcommand_from reload' -F
complete -c shmdctl -n '__fish_seen_subcommand_from reload' -l daemon -r -F -d 'What compiles the files'
complete -c shmdctl -n '__fish_seen_subcommand_from reload' -l policy-root -x -a '(__fish_complete_directories)' -d 'Where to look for the files'
complete -c shmdctl -n '__fish_seen_subcommand_from state' -l dump -r -F -d 'Write the copy to a file'
complete -c shmdctl -n '__fish_seen_subcommand_from state' -l check -r -F -d 'Check a file'
complete -c shmdctl -n '__fish_seen_subcommand_from state' -l daemon -r -F -d 'What checks'
complete -c shmdctl -n '__fish_seen_subcommand_from watch' -s e -l events -x -d 'Only these, with commas between' \
    -a 'created removed renamed replaced changed frozen holders limits'
complete -c shmdctl -n '__fish_seen_subcommand_from watch' -s l -l list -d 'First what is there'
complete -c shmdctl -n '__fish_seen_subcommand_from watch' -s n -l count -x -d 'End after so many'
complete -c shmdctl -n '__fish_seen_subcommand_from df' -s d -l directory -x -a '(__shmdctl_names)' -d 'Limits of a directory'
complete -c shmdctl -n '__fish_seen_subcommand_from df' -s u -l user -x -a '(__fish_complete_users)' -d 'Account of another user'
complete -c shmdctl -n '__fish_seen_subcommand_from df' -l accounts -d 'Every account'
complete -c shmdctl -n '__fish_seen_subcommand_from df' -l total -d 'All accounts together'
complete -c shmdctl -n '__fish_seen_subcommand_from df' -l rules -d 'Which rule gives each limit'
complete -c shmdctl -n '__fish_seen_subcommand_from upgrade' -l if-replaced -x -a '(__fish_complete_pids)' -d 'Only if the program of that process was replaced'
complete -c shmdctl -n '__fish_seen_subcommand_from ping' -s c -l count -x -d 'How many times'
complete -c shmdctl -n '__fish_seen_subcommand_from ping' -s i -l interval -x -a '100ms 1s 10s' -d 'Pause between two'
complete -c shmdctl -n '__fish_seen_subcommand_from ping' -s b -l busy-poll -d 'Ask the broker not to sleep at once'
complete -c shmdctl -n '__fish_seen_subcommand_from doctor' -s s -l strict -d 'Let warnings fail as well'
complete -c shmdctl -n '__fish_seen_subcommand_from top' -s d -l delay -x -a '500ms 1s 2s 5s' -d 'The pause between two looks'
complete -c shmdctl -n '__fish_seen_subcommand_from top' -s n -l iterations -x -d 'So many tables'
complete -c shmdctl -n '__fish_seen_subcommand_from top' -l once -d 'One table as plain text'
complete -c shmdctl -n '__fish_seen_subcommand_from top' -s s -l sort -x -a 'allocated size grants rate user name' -d 'Sort by'
complete -c shmdctl -n '__fish_seen_subcommand_from top' -s r -l reverse -d 'The other way round'
