// A name, instants in seconds -> "seconds, tab, errors, tab, addresses": what one JVM says of it then, a thread for each.
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.stream.Collectors;
import java.util.stream.Stream;

public class Resolve {
    static String addresses = "";

    public static void main(String[] words) throws Exception {
        InetAddress.getAllByName("localhost"); // of /etc/hosts: the libraries are loaded
        int count = Math.max(1, words.length - 1);
        String[] errors = new String[count];
        Thread[] threads = new Thread[count];
        long from = System.nanoTime();
        for (int i = 0; i < count; i++) {
            int at = i;
            double seconds = words.length > 1 ? Double.parseDouble(words[i + 1]) : 0;
            threads[i] = new Thread(() -> errors[at] = errorAfter(seconds, words[0]));
            threads[i].start();
        }
        for (Thread thread : threads) thread.join();
        double took = (System.nanoTime() - from) / 1e9;
        System.out.printf("%.6f\t%s\t%s", took, String.join("; ", errors), addresses);
    }

    static String errorAfter(double seconds, String name) {
        try {
            Thread.sleep((long) (seconds * 1000));
            addresses = Stream.of(InetAddress.getAllByName(name))
                    .map(InetAddress::getHostAddress).collect(Collectors.joining(" "));
            return "";
        } catch (UnknownHostException problem) {
            return problem.toString();
        } catch (InterruptedException problem) {
            throw new IllegalStateException(problem);
        }
    }
}
