use std::net::Ipv4Addr;

use tokio::task::JoinHandle;

use super::*;
use crate::data_dir::NodeKey;
use crate::origin::Origin;
use crate::transport::keys::Keys;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn sealer(node: u128, secret: u8) -> Sealer {
    let keys = Keys::new("tyr", &[vec![secret; 32]], &[]).unwrap();
    let node = NodeKey(node);
    Sealer::new(keys, Origin { node, boot: 1 })
}

/// Answers every question with its bytes in reverse.
async fn server() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, mut questions) = mpsc::channel::<Asked>(1);
    let serving = serve(listener, sealer(1, 1), asked, Traffic::default());
    let task = tokio::spawn(async move {
        let answering = async {
            while let Some(Asked { content, answer }) = questions.recv().await {
                let reversed: Vec<u8> = content.iter().rev().copied().collect();
                let _ = answer.send(reversed);
            }
        };
        tokio::join!(serving, answering);
    });
    (address, task)
}

async fn ask_with(
    sealer: &Sealer,
    to: SocketAddr,
    content: &[u8],
) -> Result<Bytes, ExchangeFailure> {
    ask(sealer, LOCAL, to, content, &Traffic::default()).await
}

#[tokio::test]
async fn a_question_is_answered() {
    let (address, _task) = server().await;
    let answer = ask_with(&sealer(2, 1), address, b"abc").await;
    assert_eq!(answer.as_deref(), Ok(b"cba".as_slice()));
    let large = vec![7; LARGEST];
    let answer = ask_with(&sealer(2, 1), address, &large).await;
    assert_eq!(answer.as_deref(), Ok(large.as_slice()));
}

#[tokio::test]
async fn a_question_that_is_too_long_is_not_asked() {
    let (address, _task) = server().await;
    let answer = ask_with(&sealer(2, 1), address, &vec![7; LARGEST + 1]).await;
    assert_eq!(answer, Err(ExchangeFailure::Broken));
}

#[tokio::test]
async fn whoever_lacks_the_secret_gets_no_answer() {
    let (address, _task) = server().await;
    let answer = ask_with(&sealer(2, 2), address, b"abc").await;
    assert_eq!(answer, Err(ExchangeFailure::Broken));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let answer = ask_with(&sealer(2, 1), address, b"abc").await;
    assert_eq!(answer, Err(ExchangeFailure::Refused));
}

/// What a listener in between hears of one exchange, and the listener's own way to play it again.
async fn recorded(address: SocketAddr) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let between = listener.local_addr().unwrap();
    let asker = sealer(2, 1);
    let asking = ask_with(&asker, between, b"abc");
    let listening = async {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(address).await.unwrap();
        let mut challenge = vec![0; CHALLENGE];
        far.read_exact(&mut challenge).await.unwrap();
        near.write_all(&challenge).await.unwrap();
        let question = read(&mut near, &Traffic::default()).await.unwrap();
        write(&mut far, &question, &Traffic::default())
            .await
            .unwrap();
        let answer = read(&mut far, &Traffic::default()).await.unwrap();
        write(&mut near, &answer, &Traffic::default())
            .await
            .unwrap();
        (challenge, question, answer)
    };
    let (answered, heard) = tokio::join!(asking, listening);
    assert!(answered.is_ok());
    heard
}

#[tokio::test]
async fn neither_question_nor_answer_can_be_played_again() {
    let (address, _task) = server().await;
    let (challenge, question, answer) = recorded(address).await;

    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut fresh = vec![0; CHALLENGE];
    stream.read_exact(&mut fresh).await.unwrap();
    write(&mut stream, &question, &Traffic::default())
        .await
        .unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());

    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let false_server = listener.local_addr().unwrap();
    let asker = sealer(2, 1);
    let asking = ask_with(&asker, false_server, b"abc");
    let playing = async {
        let (mut near, _) = listener.accept().await.unwrap();
        near.write_all(&challenge).await.unwrap();
        read(&mut near, &Traffic::default()).await.unwrap();
        write(&mut near, &answer, &Traffic::default())
            .await
            .unwrap();
    };
    let (answered, ()) = tokio::join!(asking, playing);
    assert_eq!(answered, Err(ExchangeFailure::Broken));
}

#[tokio::test]
async fn a_length_beyond_the_limit_ends_the_connection() {
    let (address, _task) = server().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.read_exact(&mut [0; CHALLENGE]).await.unwrap();
    stream.write_u32(u32::MAX).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn connections_beyond_the_most_are_closed_and_then_served_again() {
    let (address, _task) = server().await;
    let mut open = Vec::new();
    let asker = sealer(2, 1);
    for other in 1..=4 {
        // One that takes all that it can get keeps nobody else out.
        let answer = ask_with(&asker, address, b"abc").await;
        assert_eq!(answer.as_deref(), Ok(b"cba".as_slice()));
        let silent = IpAddr::from([127, 0, 1, other]);
        for _ in 0..MOST_CONNECTIONS / 4 {
            let mut stream = connect(silent, address).await.unwrap();
            stream.read_exact(&mut [0; CHALLENGE]).await.unwrap();
            open.push(stream);
        }
        let mut more = connect(silent, address).await.unwrap();
        assert!(more.read_exact(&mut [0; CHALLENGE]).await.is_err());
    }
    let mut more = TcpStream::connect(address).await.unwrap();
    assert!(more.read_exact(&mut [0; CHALLENGE]).await.is_err());
    drop(open.pop());
    // The server may see the end of the one only after the next has come.
    let mut answer = ask_with(&asker, address, b"abc").await;
    for _ in 0..100 {
        if answer.is_ok() {
            break;
        }
        tokio::task::yield_now().await;
        answer = ask_with(&asker, address, b"abc").await;
    }
    assert_eq!(answer.as_deref(), Ok(b"cba".as_slice()));
}
