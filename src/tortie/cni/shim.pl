#!/usr/bin/perl
# The CNI plugin that the container runtime executes, as `calico` and as `calico-ipam`: shim.py in Perl, for hosts
# that have it (Debian and Ubuntu always do). It starts in a quarter of the time, and behaves the same: one suite
# of tests runs against both. The protocol is in docs/architecture.md.
#
# It loads no module. Without modules it cannot pass a descriptor, so it keeps the namespace open and says under
# which number; the agent takes it from /proc while we wait. What is rarely needed stands after __END__, and is
# compiled, under `strict`, when it is: compiling takes most of the time that a script needs to start.

my $SOCKET          = '/var/run/calico/cni.sock';
my $CONNECT_SECONDS = 5;    # ADD while the agent restarts
my $DEL_SECONDS     = 1;    # DEL does not need the agent
my $ANSWER_SECONDS  = 60;   # kubelet gives up on a sandbox after 2 to 4 minutes
my $RETRY_SECONDS   = 0.05;
my $MAX_REQUEST     = 1 << 20;    # bytes; the agent's limit too
my ( $AF_UNIX, $SOCK_STREAM ) = ( 1, 1 );    # bits/socket.h
my $EINTR = 4;                               # asm-generic/errno-base.h; `%!` would load Errno

# CNI SPEC 1.1.0: the variables that each command needs, and error codes.
my %REQUIRED = (
    ADD     => [qw(CNI_CONTAINERID CNI_NETNS CNI_IFNAME)],
    DEL     => [qw(CNI_CONTAINERID CNI_IFNAME)],
    CHECK   => [qw(CNI_CONTAINERID CNI_NETNS CNI_IFNAME)],
    STATUS  => [],
    GC      => [],
    VERSION => [],
);
my @PASSED = qw(CNI_ARGS CNI_COMMAND CNI_CONTAINERID CNI_IFNAME CNI_NETNS CNI_PATH);
my ( $BAD_ENVIRONMENT, $IO_FAILURE, $BAD_CONFIG ) = ( 4, 5, 7 );

my $config = '';
my %variables;
my $namespace;    # keeps the descriptor open while the agent takes it

$SIG{PIPE} = 'IGNORE';
$SIG{ALRM} = sub { die "no answer within $ANSWER_SECONDS seconds\n" };
exit main();

# Compile what stands after __END__, and call one of its subs.
sub rarely {
    my ( $name, @arguments ) = @_;
    if ( !defined &refuse ) {
        local ( $/, $@ );
        my $text = <DATA>;
        eval "use strict;\n$text\n1" or die $@;
    }
    return &$name(@arguments);
}

# Write every byte; false when that fails.
sub write_all {
    my ( $handle, $data ) = @_;
    while ( length $data ) {
        my $written = syswrite $handle, $data;
        if ( !defined $written ) {
            next if $! == $EINTR;
            return 0;
        }
        substr( $data, 0, $written ) = '';
    }
    return 1;
}

# Standard input, bounded.
sub read_config {
    binmode STDIN;
    binmode STDOUT;
    while (1) {
        my $count = sysread STDIN, $config, 1 << 16, length $config;
        rarely( 'refuse', $IO_FAILURE, "the network configuration cannot be read from standard input: $!" )
            if !defined $count;
        return if !$count;
        rarely( 'refuse', $BAD_CONFIG, "the network configuration on standard input exceeds $MAX_REQUEST bytes" )
            if length $config > $MAX_REQUEST;
    }
}

# The command; the CNI variables are checked, and kept in %variables.
sub read_environment {
    for my $name (@PASSED) {
        $variables{$name} = $ENV{$name} if defined $ENV{$name};
    }
    ( $variables{CNI_TYPE} ) = $0 =~ m{([^/]*)\z};
    my $command = defined $variables{CNI_COMMAND} ? $variables{CNI_COMMAND} : '';
    rarely( 'unknown', $command ) if !$REQUIRED{$command};
    my @missing = grep { !defined $variables{$_} || !length $variables{$_} } @{ $REQUIRED{$command} };
    if (@missing) {
        my $names = join ' and ', @missing;
        rarely( 'refuse', $BAD_ENVIRONMENT, "$command needs $names: not set in the environment" );
    }
    return $command;
}

# Hold the container's network namespace open. For DEL it may be gone.
sub open_namespace {
    my ($command) = @_;
    my $path = $variables{CNI_NETNS};
    return if !defined $path || !length $path;
    if ( open $namespace, '<', $path ) {
        $variables{CNI_NETNS_FD} = fileno $namespace;
        return;
    }
    return if $command eq 'DEL';
    rarely( 'refuse', $BAD_ENVIRONMENT, "CNI_NETNS is $path, which cannot be opened ($!): is the sandbox gone?" );
}

# Environment items and configuration as the agent wants them.
sub payload {
    return join( "\0", map { "$_=$variables{$_}" } sort keys %variables ) . "\0\0" . $config;
}

# Send the request; exit status and standard output. Die with the reason when the agent does not answer.
sub converse {
    my ( $path, $seconds, $payload ) = @_;
    my $address = pack 'S a*', $AF_UNIX, "$path\0";
    my $tries   = $seconds / $RETRY_SECONDS;
    my $agent;
    while (1) {
        socket $agent, $AF_UNIX, $SOCK_STREAM, 0 or die "$!\n";
        last if connect $agent, $address;
        my $reason = "$!";
        die "$reason\n" if $tries-- <= 0;
        select undef, undef, undef, $RETRY_SECONDS;
    }
    write_all( $agent, pack( 'N', length $payload ) . $payload ) or die "$!\n";
    my $answer = '';
    while (1) {
        my $count = sysread $agent, $answer, 1 << 16, length $answer;
        die "$!\n" if !defined $count;
        last       if !$count;
    }
    die "the agent closed the connection without an answer\n" if !length $answer;
    return ( ord $answer, substr $answer, 1 );
}

sub main {
    read_config();
    my $command = read_environment();
    return rarely('versions') if $command eq 'VERSION';
    open_namespace($command);
    my $path = defined $ENV{TORTIE_CNI_SOCKET} ? $ENV{TORTIE_CNI_SOCKET} : $SOCKET;
    my ( $status, $output ) = eval {
        alarm $ANSWER_SECONDS;
        converse( $path, $command eq 'DEL' ? $DEL_SECONDS : $CONNECT_SECONDS, payload() );
    };
    my $reason = $@;
    alarm 0;
    return rarely( 'unanswered', $command, $path, $reason ) if !defined $status;
    return write_all( \*STDOUT, $output ) ? $status : 1;
}

__END__

my $JOURNAL = '/var/lib/calico/cni-journal';
my ( $O_WRONLY, $O_CREAT, $O_TRUNC ) = ( 1, 0100, 01000 );    # asm-generic/fcntl.h
my $EEXIST = 17;                                             # asm-generic/errno-base.h

# CNI SPEC 1.1.0: the versions that we speak, the commands, and more error codes.
my @VERSIONS = qw(0.3.1 0.4.0 1.0.0 1.1.0);
my @COMMANDS = qw(ADD DEL CHECK STATUS GC VERSION);
my ( $TRY_LATER, $UNAVAILABLE ) = ( 11, 50 );

# A JSON string; what is not printable ASCII is escaped.
sub quoted {
    my ($text) = @_;
    utf8::decode($text);    # bytes that are not UTF-8 stay as they are
    $text =~ s/(["\\])/\\$1/g;
    $text =~ s/([^ -~])/escaped(ord $1)/ge;
    return qq("$text");
}

sub escaped {
    my ($number) = @_;
    return sprintf '\\u%04x', $number if $number < 0x10000;
    $number -= 0x10000;
    return sprintf '\\u%04x\\u%04x', 0xD800 + ( $number >> 10 ), 0xDC00 + ( $number & 0x3FF );
}

# The configuration's cniVersion when we speak it, else the newest that we do: no parser for an error.
sub version {
    if ( $config =~ /"cniVersion"\s*:\s*"([^"]*)"/ ) {
        my $found = $1;
        return $found if grep { $_ eq $found } @VERSIONS;
    }
    return $VERSIONS[-1];
}

# End with an error for the runtime: CNI code and sentence.
sub refuse {
    my ( $code, $sentence ) = @_;
    my $spoken = quoted( version() );
    my $shown  = quoted($sentence);
    write_all( \*STDOUT, qq({"cniVersion": $spoken, "code": $code, "msg": $shown}\n) );
    exit 1;
}

# Keep a DEL for the agent, which reads it when it starts: complete, or not there at all. False on failure.
sub journal {
    my ( $directory, $payload ) = @_;
    my $name = join '.', @variables{qw(CNI_CONTAINERID CNI_IFNAME CNI_TYPE)};
    $name =~ tr{/}{_};
    $name = substr $name, 0, 200;
    my $draft = "$directory/.$name.$$";
    mkdir $directory, 0700 or $! == $EEXIST or return 0;
    sysopen my $file, $draft, $O_WRONLY | $O_CREAT | $O_TRUNC, 0600 or return 0;
    require IO::Handle;    # for fsync; in perl-base, and only here
    return 1 if write_all( $file, $payload ) && $file->sync && close($file) && rename $draft, "$directory/$name.del";
    my $error = $!;
    unlink $draft;
    $! = $error;
    return 0;
}

sub unknown {
    my ($command) = @_;
    my $shown = length $command ? $command : 'not set';
    my $allowed = join ', ', @COMMANDS;
    refuse( $BAD_ENVIRONMENT, "CNI_COMMAND is $shown; it must be one of $allowed" );
}

# Answer VERSION; the exit status.
sub versions {
    my $names  = join ', ', map { quoted($_) } @VERSIONS;
    my $spoken = quoted( version() );
    return write_all( \*STDOUT, qq({"cniVersion": $spoken, "supportedVersions": [$names]}\n) ) ? 0 : 1;
}

# No agent answered: keep a DEL, refuse the rest; the exit status.
sub unanswered {
    my ( $command, $path, $reason ) = @_;
    chomp $reason;
    my $absent = "the network agent of this node does not answer on $path ($reason)";
    my $remedy = 'try again, and see that the calico-node pod runs';
    refuse( $UNAVAILABLE, "$absent; $remedy" ) if $command eq 'STATUS';
    refuse( $TRY_LATER,   "$absent; $remedy" ) if $command ne 'DEL';
    delete $variables{CNI_NETNS_FD};    # of no use to whoever reads the journal
    my $directory = defined $ENV{TORTIE_CNI_JOURNAL} ? $ENV{TORTIE_CNI_JOURNAL} : $JOURNAL;
    return 0 if journal( $directory, payload() );
    refuse( $TRY_LATER, "$absent, and the DEL cannot be kept in $directory ($!)" );
}
